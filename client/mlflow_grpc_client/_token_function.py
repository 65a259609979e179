"""Calls of the function of a token, which may be slow, hang or raise.

Rule of this module: it runs a function of the user in a thread, so that one that hangs delays its call up to the
timeout of the call, and no other call of an AsyncClient at all. A text or a file needs no thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # A class of its own before Python 3.11.
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc_client._calls import remaining_s
from mlflow_grpc_client._token import TokenFile, TokenText
from mlflow_grpc_client.errors import failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_grpc_client.errors import PredictError

MAX_RUNNING = 64
"""Maximum number of functions that run at a time. Further calls wait, so that the number of threads has a limit."""

WAIT_S = 0.01
"""Time between two looks of an AsyncClient whether it may call another function, in seconds."""

_running = threading.BoundedSemaphore(MAX_RUNNING)


def token_until(function: Callable[[], Any], deadline: float, timeout_s: float | None) -> Any:
    """Returns what the function of a token returns.

    Args:
        function: The function.
        deadline: The deadline of the call, on the monotonic clock.
        timeout_s: Its timeout in seconds, for the error.

    Raises:
        PredictError: The function has not returned by the deadline.
        BaseException: What the function raises.

    """
    if isinstance(function, (TokenText, TokenFile)):
        return function()
    if not _running.acquire(timeout=remaining_s(deadline)):
        raise _late(timeout_s)
    future = _start(function)
    try:
        return future.result(remaining_s(deadline))
    except FutureTimeoutError:
        if future.done():  # The function itself has raised it, or has ended in this moment.
            return future.result()
        raise _late(timeout_s) from None


async def token_awaited_until(function: Callable[[], Any], deadline: float, timeout_s: float | None) -> Any:
    """Returns what the function of a token returns, or what that returns when it is awaited.

    Takes what `token_until` takes, and raises what it raises.
    """
    if isinstance(function, (TokenText, TokenFile)):
        return function()
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await _result(asyncio.ensure_future(function()), deadline, timeout_s)
    while not _running.acquire(blocking=False):
        if time.monotonic() >= deadline:
            raise _late(timeout_s)
        await asyncio.sleep(WAIT_S)
    token = await _result(asyncio.wrap_future(_start(function)), deadline, timeout_s)
    if inspect.isawaitable(token):
        return await _result(asyncio.ensure_future(token), deadline, timeout_s)
    return token


async def _result(future: asyncio.Future[Any], deadline: float, timeout_s: float | None) -> Any:
    try:
        done, _ = await asyncio.wait({future}, timeout=remaining_s(deadline))
    finally:
        future.cancel()  # Only if it is not done.
    if not done:
        raise _late(timeout_s)
    return future.result()


def _start(function: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # Prevents cancellation.

    def run() -> None:
        try:
            token = function()
        except BaseException as error:  # noqa: BLE001 - the call raises it
            future.set_exception(error)
        else:
            future.set_result(token)
        finally:
            _running.release()

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="token", daemon=True).start()
    return future


def _late(timeout_s: float | None) -> PredictError:
    return failure(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"The function of the token has not returned within {timeout_s or 0:g} s, so the call was not sent.",
    )
