"""The device plugin, against a stand-in for the kubelet that speaks the real protocol over a real socket."""

import queue
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.simgpu import device_plugin_api as api
from tests.simgpu import plugin
from tests.simgpu.faults import write_faults
from tests.simgpu.libraries import LIBRARIES


def serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


class Kubelet:
    """Takes registrations; `registered` gets each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registered: queue.Queue[Any] = queue.Queue()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run from a start, which empties the folder of sockets as the kubelet does, to a stop."""
        for socket in self.folder.glob("*.sock"):
            socket.unlink()
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        method = grpc.unary_unary_rpc_method_handler(self._register, api.RegisterRequest.FromString, serialize)
        service, name = api.REGISTER.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
        server.add_insecure_port(f"unix://{self.folder / plugin.KUBELET_SOCKET}")
        server.start()
        try:
            yield
        finally:
            server.stop(grace=None).wait()

    def _register(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.registered.put(request)
        return api.Empty()


@pytest.fixture
def places(tmp_path: Path) -> plugin.Places:
    made = plugin.Places(
        sockets=tmp_path / "s",
        cdi=tmp_path / "cdi",
        gpus=tmp_path / "gpus",
        gpus_on_node=Path("/on-the-node"),
        libraries=tmp_path / "compiled",
    )
    for folder in (made.sockets, made.libraries):
        folder.mkdir()
    for name in LIBRARIES:
        (made.libraries / name).write_bytes(b"compiled " + name.encode())
    return made


@contextmanager
def serving(places: plugin.Places, gpus: list[Any]) -> Iterator[None]:
    """Run the plugin as its main loop does."""
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            plugin.serve_until_gone(places, gpus, stop)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def call(channel: grpc.Channel, method: str, request: Any, response: Any) -> Any:
    return channel.unary_unary(f"/{api.DEVICE_PLUGIN}/{method}", serialize, response.FromString)(request, timeout=10)


def test_a_second_start_replaces_the_libraries_and_keeps_the_gpus(places: plugin.Places) -> None:
    first = plugin.install(places, "node", 2, 1)
    library = places.gpus / "lib" / LIBRARIES[0]
    mapped = library.stat().st_ino
    with library.open("rb") as held:  # a client that has the old file open keeps it whole
        (places.libraries / LIBRARIES[0]).write_bytes(b"newer")
        assert plugin.install(places, "node", 2, 1) == first
        assert held.read() == b"compiled " + LIBRARIES[0].encode()
    assert library.read_bytes() == b"newer"
    assert library.stat().st_ino != mapped
    assert (places.gpus / "driver" / "params").exists()
    assert (places.cdi / "nvidia-simgpu.json").exists()


def test_it_registers_again_when_the_kubelet_restarts(places: plugin.Places) -> None:
    gpus = plugin.install(places, "node", 1, 1)
    kubelet = Kubelet(places.sockets)
    with serving(places, gpus):  # before there is a kubelet
        for _ in range(2):
            with kubelet.running():
                request = kubelet.registered.get(timeout=30)
                assert (request.version, request.endpoint) == ("v1beta1", "simgpu.sock")
                assert request.resource_name == "nvidia.com/gpu"
                with grpc.insecure_channel(f"unix://{places.sockets / request.endpoint}") as channel:
                    call(channel, "GetDevicePluginOptions", api.Empty(), api.DevicePluginOptions)


def test_health_follows_the_faults(places: plugin.Places) -> None:
    gpus = plugin.install(places, "node", 2, 1)
    kubelet = Kubelet(places.sockets)
    with kubelet.running(), serving(places, gpus):
        endpoint = kubelet.registered.get(timeout=30).endpoint
        with grpc.insecure_channel(f"unix://{places.sockets / endpoint}") as channel:
            watch = channel.unary_stream(
                f"/{api.DEVICE_PLUGIN}/ListAndWatch", serialize, api.ListAndWatchResponse.FromString
            )(api.Empty(), timeout=30)
            health = lambda: [(device.ID, device.health) for device in next(watch).devices]  # noqa: E731
            assert health() == [(gpus[0].uuid, "Healthy"), (gpus[1].uuid, "Healthy")]
            write_faults(gpus[1].folder, lost=1)
            assert health() == [(gpus[0].uuid, "Healthy"), (gpus[1].uuid, "Unhealthy")]
            write_faults(gpus[1].folder)
            assert health() == [(gpus[0].uuid, "Healthy"), (gpus[1].uuid, "Healthy")]
            watch.cancel()


def test_allocate_names_cdi_devices_for_each_container(places: plugin.Places) -> None:
    gpus = plugin.install(places, "node", 2, 1)
    kubelet = Kubelet(places.sockets)
    with kubelet.running(), serving(places, gpus):
        endpoint = kubelet.registered.get(timeout=30).endpoint
        with grpc.insecure_channel(f"unix://{places.sockets / endpoint}") as channel:

            def allocate(*containers: list[str]) -> list[list[str]]:
                wanted = [api.ContainerAllocateRequest(devices_ids=uuids) for uuids in containers]
                answer = call(channel, "Allocate", api.AllocateRequest(container_requests=wanted), api.AllocateResponse)
                return [[device.name for device in each.cdi_devices] for each in answer.container_responses]

            a, b = gpus[0].uuid, gpus[1].uuid
            assert allocate([a, b]) == [[f"nvidia.com/gpu={a}", f"nvidia.com/gpu={b}"]]
            assert allocate([b], [a]) == [[f"nvidia.com/gpu={b}"], [f"nvidia.com/gpu={a}"]]
            with pytest.raises(grpc.RpcError, match="There is no GPU GPU-0 here"):
                allocate(["GPU-0"])


def test_messages_are_the_apis_on_the_wire() -> None:
    request = api.RegisterRequest(version="v1beta1", endpoint="e", resource_name="r")
    assert serialize(request) == b"\x0a\x07v1beta1\x12\x01e\x1a\x01r"
    response = api.ContainerAllocateResponse(cdi_devices=[api.CDIDevice(name="n")])
    assert serialize(api.AllocateResponse(container_responses=[response])) == b"\x0a\x05\x2a\x03\x0a\x01n"
