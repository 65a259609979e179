"""Workarounds for bugs in grpcio.

Rule of this module: only here may the client touch private parts of gRPC. Each workaround names its issue, is for all
releases that this client allows, changes nothing where the private parts are missing, and has a test that fails once
gRPC is fixed.
"""

import asyncio
from typing import Any

STATUS_DELAY_S = 1.0
"""Seconds to wait for the server's status after a write has failed."""


def keep_status(call: Any) -> None:
    """Lets a grpc.aio call with a stream of requests keep the status that the server sent.

    If a server ends a stream while grpc.aio writes to it, the write fails, and grpc.aio replaces the server's status
    with INTERNAL, "Internal error from Core" (https://github.com/grpc/grpc/issues/36066). Here this error is set only
    if no status arrives (https://github.com/grpc/grpc/issues/34148).
    """
    # A call with interceptors creates its core later, and is left as it is.
    if hasattr(call, "_cython_call"):
        call._cython_call = _StatusKeepingCall(call._cython_call)  # noqa: SLF001


class _StatusKeepingCall:
    """The Cython core of a call, with a delay for errors of writes."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def set_internal_error(self, text: str) -> None:
        """Sets an error unless a status arrives in time."""
        asyncio.get_running_loop().call_later(STATUS_DELAY_S, self._set_if_running, text)

    def _set_if_running(self, text: str) -> None:
        if not self._core.done():
            self._core.set_internal_error(text)
