"""A proxy in front of the API server that spoils watches.

Everything passes through and is noted. A watch can be told an error, cut, or be kept open while its events are held
back, as a broken network between the operator and the API server does.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from ssl import SSLContext
from typing import Any

from aiohttp import ClientConnectionResetError, ClientSession, ClientTimeout, TCPConnector, web

Object = dict[str, Any]
# Headers that the proxy has of its own: it speaks to the API server as the administrator.
_OWN = (
    "authorization",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "content-encoding",
    "accept-encoding",
)


class Proxy:
    """One running proxy. Watches are named by the plural of their kind."""

    def __init__(self, target: str, session: ClientSession) -> None:
        self._target = target
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, web.StreamResponse] = {}
        self._muted: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        """Method and path of everything that was asked."""
        self.url = ""

    def watches(self) -> set[str]:
        """Return the kinds that are being watched now."""
        return set(self._streams)

    def mute(self, plural: str) -> None:
        """Hold back the events of a watch, and of those that follow it; bookmarks pass."""
        self._muted.add(plural)

    def unmute(self, plural: str) -> None:
        """Let events pass again; those that were held back are lost."""
        self._muted.discard(plural)

    def tell_error(self, plural: str, code: int) -> None:
        """Tell a watch an ERROR event."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "injected"}
        line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        asyncio.run_coroutine_threadsafe(self._streams[plural].write(line), self._loop).result(10)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _OWN}
        async with self._session.request(
            request.method, self._target + request.path_qs, headers=headers, data=await request.read() or None
        ) as answer:
            back = {key: value for key, value in answer.headers.items() if key.lower() not in _OWN}
            response = web.StreamResponse(status=answer.status, headers=back)
            try:
                await response.prepare(request)
                if request.query.get("watch") == "true":
                    await self._relay(request.path.rsplit("/", 1)[-1], answer.content, response)
                else:
                    await response.write(await answer.read())
                await response.write_eof()
            except ClientConnectionResetError:
                return response
            return response

    async def _relay(self, plural: str, lines: AsyncIterator[bytes], response: web.StreamResponse) -> None:
        self._streams[plural] = response
        try:
            async for line in lines:
                if plural not in self._muted or json.loads(line)["type"] == "BOOKMARK":
                    await response.write(line)
        finally:
            if self._streams.get(plural) is response:
                del self._streams[plural]


@asynccontextmanager
async def _running(target: str, context: SSLContext) -> AsyncIterator[Proxy]:
    """Run a proxy, without TLS, to an API server."""
    connector = TCPConnector(ssl=context, limit=0)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None), read_bufsize=1 << 22) as session:
        proxy = Proxy(target, session)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()


class Background:
    """A coroutine that runs in a thread with an event loop of its own."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.error: BaseException | None = None
        self._coroutine = coroutine
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._coroutine)
        except Exception as error:
            self.error = error

    @property
    def has_ended(self) -> bool:
        """Say whether it has ended."""
        return not self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait for the end; raise when it does not come."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise AssertionError(f"it does not end within {seconds} s")


@contextmanager
def proxied(target: str, context: SSLContext) -> Iterator[Proxy]:
    """Run a proxy, without TLS, to an API server."""
    ready, stop = threading.Event(), threading.Event()
    made: list[Proxy] = []

    async def run() -> None:
        async with _running(target, context) as proxy:
            made.append(proxy)
            ready.set()
            await asyncio.to_thread(stop.wait)

    background = Background(run())
    try:
        assert ready.wait(10), background.error
        yield made[0]
    finally:
        stop.set()
        background.join(20)
