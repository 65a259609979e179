"""A worker's connection to its supervisor while it serves: what it leaves behind, and requests for its replacement.

A process can hold only one version of a module, so a version with other code of its own needs another process. The
worker that tracks the model requests one, goes on serving, and ends once the other one serves.

Rule of this module: used from the event loop. Messages are sent and received in threads, because a pipe may block.
"""

import asyncio
import contextlib
import pickle
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.errors import StartError
from mlflow_grpc.registry_versions import Version

if TYPE_CHECKING:  # The supervisor imports this module, and not what Handover needs.
    from mlflow_grpc.rollout.handover import Handover

HANDOVER, REPLACE = "handover", "replace"
"""Messages to the supervisor: what the worker serves now, and a request for another process."""


class SupervisorLink:
    """The connection of one worker."""

    def __init__(self, pipe: Connection, predecessor: bytes = b"") -> None:
        """Sends nothing yet.

        Args:
            pipe: Connection to the supervisor.
            predecessor: What the worker that this one replaces served, as it has sent it; empty if it replaces none.

        """
        self._pipe = pipe
        self._sending = threading.Lock()
        self._requesting = asyncio.Lock()
        self._is_open = asyncio.Event()
        self.predecessor: Handover | None = pickle.loads(predecessor) if predecessor else None  # noqa: S301 - of a worker
        """What the worker that this one replaces served; None if it replaces none."""
        self.served: Callable[[], Handover] | None = None
        """Returns what this worker serves now; None before its models are known."""

    def open(self) -> None:
        """Permits requests, once the supervisor has no other message for this worker."""
        self._is_open.set()

    async def leave(self) -> None:
        """Sends what this worker serves now, for the worker that replaces it."""
        if self.served is None:
            return
        text = pickle.dumps(self.served())
        with contextlib.suppress(OSError):  # The supervisor has ended, and so will this process.
            await in_daemon_thread(lambda: self._send(HANDOVER, text), "hand-over")

    async def request_replacement(self, uri: str, version: Version) -> None:
        """Waits for a worker that serves a version in place of this one; this one is then ended by a signal.

        Args:
            uri: URI of the tracked model.
            version: The version that it has to serve.

        Raises:
            StartError: The version cannot be served.

        """
        await self._is_open.wait()
        async with self._requesting:
            try:
                reason = await in_daemon_thread(lambda: self._ask(uri, version), "request-replacement")
            except (EOFError, OSError):
                reason = "the supervisor of the workers has ended"
        raise StartError(reason)

    def _send(self, message: str, content: Any) -> None:
        with self._sending:
            self._pipe.send((message, content, 0))

    def _ask(self, uri: str, version: Version) -> str:
        self._send(REPLACE, (uri, version))
        return str(self._pipe.recv())
