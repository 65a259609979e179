"""Queries of the registry in threads of their own, so that one that hangs delays nothing.

Rule of this module: used from the event loop only. A query that takes too long is given up, but its thread ends only
with the answer, so the number of such threads is limited.
"""

import asyncio
import threading
from typing import TYPE_CHECKING

from mlflow_grpc.daemon_threads import in_daemon_thread

if TYPE_CHECKING:  # It imports MLflow.
    from mlflow_grpc.hosting.pyfunc.polling import RegisteredVersion

LIMIT_S = 5.0
"""Maximum duration of a query, in seconds; a registry answers in milliseconds."""

MAX_UNANSWERED = 4
"""Maximum number of queries that have no answer yet."""


class Poller:
    """Asks the registry for the versions of all tracked models of a server."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(MAX_UNANSWERED)

    async def current_version(self, uri: str) -> "RegisteredVersion":
        """Returns the version that a URI means now; raises QueryFailed as `polling.current_version` does."""
        from mlflow_grpc.hosting.pyfunc import polling

        if not self._room.acquire(blocking=False):
            raise polling.QueryFailed(f"{MAX_UNANSWERED} earlier queries have no answer yet")

        def query() -> "RegisteredVersion":
            try:
                return polling.current_version(uri, LIMIT_S)
            finally:
                self._room.release()

        try:
            async with asyncio.timeout(LIMIT_S):
                return await in_daemon_thread(query, "poll-registry")
        except TimeoutError:
            raise polling.QueryFailed(f"no answer within {LIMIT_S:g} s") from None
