"""The device plugin of simulated GPUs: makes them, writes their CDI spec, and offers them to the kubelet.

1. At start: GPU folders, libraries (replaced by rename: running clients keep theirs), driver parameters, CDI spec.
2. Then it serves the device plugin API and registers. A restarting kubelet empties its folder of sockets, so when ours
   is gone, or the kubelet's is another, the plugin serves and registers again.
3. Devices are called by UUID. Their health is what their faults say.
4. Allocate answers with CDI device names: the container runtime does the rest.

Environment: NODE_NAME; HOST_ROOT, the folder on the node that /host shows; GPUS and MIB, how many and how large.
"""

import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tests.simgpu import cdi
from tests.simgpu import device_plugin_api as api
from tests.simgpu.driver_root import write_parameters
from tests.simgpu.faults import is_healthy
from tests.simgpu.gpus import Gpu, make_gpus
from tests.simgpu.libraries import LIBRARIES

RESOURCE = "nvidia.com/gpu"
SOCKET = "simgpu.sock"
KUBELET_SOCKET = "kubelet.sock"
LOOK_AGAIN_SECONDS = 1.0

log = logging.getLogger("simgpu")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders as this process sees them, and what the node calls the one for GPUs."""

    sockets: Path
    cdi: Path
    gpus: Path
    gpus_on_node: Path
    libraries: Path


def install(places: Places, node: str, count: int, mib: int) -> list[Gpu]:
    """Put GPUs, libraries, driver parameters and the CDI spec in place; return the GPUs."""
    gpus = make_gpus(places.gpus, node, count, mib)
    target = places.gpus / "lib"
    target.mkdir(exist_ok=True)
    for name in LIBRARIES:
        shutil.copyfile(places.libraries / name, target / f"{name}.new")
        os.replace(target / f"{name}.new", target / name)
    write_parameters(places.gpus / "driver", [gpu.folder for gpu in gpus])
    cdi.write_spec(places.cdi, cdi.build_spec(places.gpus_on_node, gpus))
    return gpus


class DevicePlugin:
    """The methods that the kubelet calls."""

    def __init__(self, gpus: list[Gpu], driver_root: Path, stop: threading.Event) -> None:
        self._gpus, self._driver_root, self._stop = gpus, driver_root, stop

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server needs to serve the methods."""
        return grpc.method_handlers_generic_handler(
            api.DEVICE_PLUGIN,
            {
                "GetDevicePluginOptions": _unary(self.get_options, api.Empty),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                    self.list_and_watch, api.Empty.FromString, lambda message: message.SerializeToString()
                ),
                "Allocate": _unary(self.allocate, api.AllocateRequest),
            },
        )

    def get_options(self, request: Any, context: grpc.ServicerContext) -> Any:
        return api.DevicePluginOptions()

    def list_and_watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Tell the devices and their health, and again whenever that changes."""
        told: list[tuple[str, str]] | None = None
        while context.is_active() and not self._stop.is_set():
            write_parameters(self._driver_root, [gpu.folder for gpu in self._gpus])
            health = [(gpu.uuid, "Healthy" if is_healthy(gpu.folder) else "Unhealthy") for gpu in self._gpus]
            if health != told:
                log.info("devices: %s", health)
                told = health
                yield api.ListAndWatchResponse(devices=[api.Device(ID=uuid, health=state) for uuid, state in health])
            self._stop.wait(LOOK_AGAIN_SECONDS)

    def allocate(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Name the CDI devices of each container."""
        wanted = [list(container.devices_ids) for container in request.container_requests]
        log.info("allocate: %s", wanted)
        known = {gpu.uuid for gpu in self._gpus}
        for uuid in (uuid for container in wanted for uuid in container):
            if uuid not in known:
                context.abort(grpc.StatusCode.NOT_FOUND, f"There is no GPU {uuid} here; there are {sorted(known)}.")
        return api.AllocateResponse(
            container_responses=[
                api.ContainerAllocateResponse(
                    cdi_devices=[api.CDIDevice(name=cdi.device_name(uuid)) for uuid in container]
                )
                for container in wanted
            ]
        )


def serve_until_gone(places: Places, gpus: list[Gpu], stop: threading.Event) -> None:
    """Serve and register once; return when the kubelet was restarted, does not answer, or `stop` is set."""
    socket, kubelet = places.sockets / SOCKET, places.sockets / KUBELET_SOCKET
    socket.unlink(missing_ok=True)
    leave = threading.Event()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((DevicePlugin(gpus, places.gpus / "driver", leave).handlers(),))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    try:
        registered_with = _identity(kubelet)
        _register(kubelet)
        log.info("registered %d GPUs as %s", len(gpus), RESOURCE)
        while not stop.is_set() and socket.exists() and _identity(kubelet) == registered_with:
            stop.wait(LOOK_AGAIN_SECONDS)
    except grpc.RpcError as error:
        log.info("the kubelet does not answer: %s", error.code())
        stop.wait(LOOK_AGAIN_SECONDS)
    finally:
        leave.set()
        server.stop(grace=None).wait()


def _register(kubelet: Path) -> None:
    request = api.RegisterRequest(
        version=api.VERSION, endpoint=SOCKET, resource_name=RESOURCE, options=api.DevicePluginOptions()
    )
    with grpc.insecure_channel(f"unix://{kubelet}") as channel:
        call = channel.unary_unary(api.REGISTER, lambda message: message.SerializeToString(), api.Empty.FromString)
        call(request, timeout=5)


def _identity(socket: Path) -> tuple[int, int] | None:
    """Tell a socket from another one made later under the same name."""
    try:
        status = socket.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def _unary(method: Any, request: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(method, request.FromString, lambda message: message.SerializeToString())


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    places = Places(
        sockets=Path("/device-plugins"),
        cdi=Path("/cdi"),
        gpus=Path("/host"),
        gpus_on_node=Path(os.environ["HOST_ROOT"]),
        libraries=Path("/opt/simgpu/lib"),
    )
    count, mib = int(os.environ.get("GPUS", "2")), int(os.environ.get("MIB", "64"))
    gpus = install(places, os.environ["NODE_NAME"], count, mib)
    while not stop.is_set():
        serve_until_gone(places, gpus, stop)


if __name__ == "__main__":
    main()
