"""A trial bind counts as refused when every API server refuses it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from lethe.adapters.kube import Kube
from lethe.model.errors import UnavailableError
from tests.common.certificates import Authority

REFUSED = (403, "lethe: node gpu-1 is closed")
BOUND_ALREADY = (409, "pod x is already assigned to node gpu-1")
MISSING = (404, 'pods "x" not found')
BROKEN = (500, "etcd is away")


@asynccontextmanager
async def api_server(authority: Authority, folder: Path, answer: tuple[int, str]) -> AsyncIterator[int]:
    """Run a server that answers every trial bind the same; yield its port."""

    async def bind(request: web.Request) -> web.Response:
        assert request.query["dryRun"] == "All"
        return web.json_response({"kind": "Status", "message": answer[1]}, status=answer[0])

    app = web.Application()
    app.router.add_post("/api/v1/namespaces/acme/pods/x/binding", bind)
    authority.write_server(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class InCluster(Kube):
    """A connection from inside a cluster with these API servers."""

    def __init__(self, configuration: client.Configuration, ports: list[int]) -> None:
        super().__init__(client.ApiClient(configuration), in_cluster=True)
        self.ports = ports

    async def list(self, *arguments: Any, **options: Any) -> Any:
        endpoints = [{"addresses": ["127.0.0.1"]}]
        return [
            {"addressType": "IPv4", "ports": [{"name": "https", "port": port}], "endpoints": endpoints}
            for port in self.ports
        ]


async def trial(folder: Path, *answers: tuple[int, str]) -> str | None:
    authority = Authority()
    (folder / "ca.crt").write_text(authority.pem)
    configuration = client.Configuration()
    configuration.host, configuration.ssl_ca_cert = "https://unused.invalid", str(folder / "ca.crt")
    async with AsyncExitStack() as stack:
        ports = [
            await stack.enter_async_context(api_server(authority, folder / str(number), answer))
            for number, answer in enumerate(answers)
        ]
        async with InCluster(configuration, ports) as api:
            return await api.bind_dry_run("acme", "x", "uid", "gpu-1")


async def test_refused_by_all(tmp_path: Path) -> None:
    assert await trial(tmp_path, REFUSED, REFUSED) == REFUSED[1]


@pytest.mark.parametrize("lagging", [BOUND_ALREADY, MISSING], ids=["409", "404"])
async def test_one_that_lags_behind_keeps_the_node_open(tmp_path: Path, lagging: tuple[int, str]) -> None:
    assert await trial(tmp_path, REFUSED, lagging) is None
    assert await trial(tmp_path, lagging, REFUSED) is None


async def test_one_that_does_not_answer_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="etcd is away"):
        await trial(tmp_path, REFUSED, BROKEN)


async def test_no_server_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no EndpointSlice"):
        await trial(tmp_path)
