"""An event loop for coroutines that never wait for the outside: no selector, no timers, a third of the cost."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

_T = TypeVar("_T")


class InstantLoop(asyncio.AbstractEventLoop):
    """Runs callbacks until there are none; a coroutine that has not ended then waits for something that never comes."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Handle] = deque()

    def run_until_complete(self, future: Coroutine[Any, Any, _T]) -> _T:  # type: ignore[override]
        task: asyncio.Task[_T] = asyncio.Task(future, loop=self)
        asyncio._set_running_loop(self)
        try:
            while self._ready:
                self._ready.popleft()._run()
        finally:
            asyncio._set_running_loop(None)
        return task.result()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def create_task(self, coro: Coroutine[Any, Any, _T], **options: Any) -> "asyncio.Task[_T]":  # type: ignore[override]
        return asyncio.Task(coro, loop=self)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore the errors of a read whose cycle another read's error has ended already."""
