"""A thread that looks at something again and again: a file that may change, keys that another server publishes.

Rule of this module: it knows nothing of what is looked at. What a look finds is for its function to keep.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

LOOK_INTERVAL_S = 1.0
"""Time between two looks at a file, in seconds. Kubernetes replaces files without a signal, so they are read again."""

SETTLE_S = 0.5
"""Time for which a changed file has to stay the same, in seconds. A writer may be in the middle of it."""


class Poller:
    """Calls a function in a daemon thread, from `__enter__` to `__exit__`."""

    def __init__(self, look: Callable[[], float], name: str, *, cooldown_s: float = 0.0) -> None:
        """Starts no thread yet.

        Args:
            look: Called again and again; returns the time until its next call, in seconds. An exception is logged.
            name: Name of the thread.
            cooldown_s: Minimum time between two calls of which the second follows a `wake`, in seconds; less if the
                first has asked for less.

        """
        self._look = look
        self._name = name
        self._cooldown_s = cooldown_s
        self._woken, self._stopped = threading.Event(), threading.Event()

    def wake(self) -> None:
        """Makes the next call early, once the minimum time has passed; called in any thread."""
        if not self._woken.is_set():
            self._woken.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The thread is not waited for, because a look may hang.
        self._stopped.set()
        self._woken.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            if self._stopped.is_set():  # Set between the two lines above.
                return
            looked_at = time.monotonic()
            delay_s = LOOK_INTERVAL_S
            try:
                delay_s = self._look()
            except Exception:
                logger.exception("%s failed, and is tried again", self._name)
            if self._woken.wait(delay_s):
                # A wake never makes the next call later than it would have been without.
                cooldown_s = min(self._cooldown_s, delay_s)
                self._stopped.wait(max(0.0, looked_at + cooldown_s - time.monotonic()))
