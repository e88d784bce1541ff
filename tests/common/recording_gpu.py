"""A GPU whose memory is a number of bytes, and which lists what was launched; real kernels run in tests/unit/simgpu."""

from collections.abc import Mapping, Sequence

from lethe.model.ports import DeviceMemory

MIB = 1 << 20
CONTEXT = 512 << 10


class RecordingGpu:
    """Memory that is given out until it is used up, and a list of what was launched."""

    granularity = 2 * MIB
    multiprocessors = 3
    shared_bytes = 1024

    def __init__(
        self,
        free: int,
        largest: int | None = None,
        counters: Mapping[str, Sequence[int]] | None = None,
        bitmaps: Sequence[int] = (0b111,),
    ) -> None:
        """`counters` is what kernels leave behind, `bitmaps` what each launch on the multiprocessors has reached."""
        self.free = free
        self.largest = largest or free
        self.found = dict(counters or {})
        self.bitmaps = list(bitmaps)
        self.taken: list[DeviceMemory] = []
        self.returned: list[DeviceMemory] = []
        self.launched: list[tuple[str, tuple[int, ...]]] = []

    def kernels(self) -> list[str]:
        return [kernel for kernel, _ in self.launched if kernel != "write"]

    def free_bytes(self) -> int:
        return self.free

    def used_bytes(self) -> int:
        return CONTEXT

    def take_mapped(self, length: int) -> DeviceMemory | None:
        assert length % self.granularity == 0
        return self._take(length) if length <= self.largest else None

    def take_classic(self, length: int) -> DeviceMemory | None:
        return self._take(length)

    def _take(self, length: int) -> DeviceMemory | None:
        if length > self.free:
            return None
        self.free -= length
        self.taken.append(DeviceMemory(sum(piece.length for piece in self.taken) + length, length))
        return self.taken[-1]

    def give_back(self, piece: DeviceMemory) -> None:
        assert piece in self.taken
        self.returned.append(piece)
        self.free += piece.length

    def write(self, memory: DeviceMemory, values: Sequence[int]) -> None:
        assert len(values) * 8 <= memory.length
        self.launched.append(("write", tuple(values)))

    def read(self, memory: DeviceMemory, count: int) -> list[int]:
        kernel = self.launched[-1][0]
        if kernel != "lethe_shared":
            return list(self.found.get(kernel, (0, 2**64 - 1, 0)))[:count]
        launches = sum(name == kernel for name, _ in self.launched)
        bitmap = self.bitmaps[min(launches, len(self.bitmaps)) - 1]
        words = [bitmap >> 64 * number & (2**64 - 1) for number in range(count - 2)]
        return [*self.found.get(kernel, (0, 0)), *words]

    def launch(self, kernel: str, *arguments: int) -> None:
        self.launched.append((kernel, arguments))

    def launch_on_multiprocessors(self, kernel: str, *arguments: int) -> None:
        self.launched.append((kernel, arguments))

    def synchronize(self) -> None: ...
