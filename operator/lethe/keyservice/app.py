"""HTTP: the release protocol over TLS 1.3, and health over plain HTTP.

1. A body is read up to `MAX_BODY` and within the time limit, and parsed strictly.
2. Every answer that is not a success has a `Refusal` as its body. Statuses: 400 for a message that is not of the
   protocol, 401 for a token, 403 for a check, 409 for a check that may succeed soon, 429 for a rate limit, 503 when the
   API server, the store or the vault is away, 500 for a defect, of which the answer says nothing.
3. Only names of checks and sentences about objects of the pod's own namespace and node go to the caller.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from lethe.formats.protocol import (
    CHALLENGE_PATH,
    CONFIRM_PATH,
    MAX_BODY,
    RELEASE_PATH,
    ChallengeRequest,
    ConfirmRequest,
    Message,
    Refusal,
    ReleaseRequest,
    encode_message,
    parse_message,
)
from lethe.keyservice.rates import RateLimit, RateLimitError
from lethe.keyservice.releases import Releases
from lethe.model.errors import LetheError, ProtocolError, ReleaseRefused, UnavailableError

REQUEST_SECONDS: Final = 30.0

_log = structlog.get_logger()


def build_app(releases: Releases, address_limit: RateLimit) -> web.Application:
    """Return the application that pods talk to."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            address_limit.take(request.remote or "")
            async with asyncio.timeout(REQUEST_SECONDS):
                return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return _answer(413, Refusal(check="message", message=f"the body is larger than {MAX_BODY} bytes"))
        except web.HTTPException as error:
            return _answer(error.status, Refusal(check="message", message=error.reason))
        except (LetheError, TimeoutError) as error:
            return _refusal(error)
        except Exception:
            _log.exception("a request failed by a defect", path=request.path)
            return _answer(500, Refusal(check="service", message="the key service failed; see its log", retryable=True))

    async def challenge(request: web.Request) -> web.Response:
        return _answer(200, await releases.challenge(parse_message(await request.read(), ChallengeRequest)))

    async def release(request: web.Request) -> web.Response:
        return _answer(200, await releases.release(parse_message(await request.read(), ReleaseRequest)))

    async def confirm(request: web.Request) -> web.Response:
        await releases.confirm(parse_message(await request.read(), ConfirmRequest))
        return web.Response(status=204)

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY)
    app.router.add_post(CHALLENGE_PATH, challenge)
    app.router.add_post(RELEASE_PATH, release)
    app.router.add_post(CONFIRM_PATH, confirm)
    return app


def build_health_app(check: Callable[[], Awaitable[None]]) -> web.Application:
    """Return the application that kubelets probe: `/healthz` says that the process turns, `/readyz` what it needs."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        try:
            await check()
        except LetheError as error:
            return web.Response(status=503, text=f"{error}\n")
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def _refusal(error: LetheError | TimeoutError) -> web.Response:
    match error:
        case ReleaseRefused():
            status = 409 if error.retryable else 401 if error.check.startswith("token-") else 403
            return _answer(status, Refusal(check=error.check, message=str(error), retryable=error.retryable))
        case ProtocolError():
            return _answer(400, Refusal(check="message", message=str(error)))
        case RateLimitError():
            return _answer(429, Refusal(check="rate", message=str(error), retryable=True))
        case UnavailableError():
            return _answer(503, Refusal(check="cluster", message=str(error), retryable=True))
        case TimeoutError():
            return _answer(503, Refusal(check="cluster", message="the request took too long", retryable=True))
        case _:
            _log.error("a request failed", error=str(error), kind=type(error).__name__)
            return _answer(503, Refusal(check="service", message="the key service failed; see its log", retryable=True))


def _answer(status: int, message: Message) -> web.Response:
    return web.Response(status=status, body=encode_message(message), content_type="application/json")
