"""The time limit of a request.

Rule of this module: it compares points in time, and starts no timer.
"""

import time
from typing import Self

from mlflow_grpc.errors import CallerDeadlineExceeded, TimeLimitExceeded

CLOCK_TOLERANCE_S = 0.02
"""Time before the caller's deadline in which a cancellation counts as its end, in seconds.

The caller's clock started when it sent the call, a moment before the server's, so its cancellation may come first. On
busy machines it came up to 7 ms early, and seldom more than 10 ms. A larger tolerance counts callers that give up as
late calls.
"""


def is_over(deadline: float | None) -> bool:
    """Returns True if a caller that cancels its call now does so because of its deadline.

    Args:
        deadline: On the clock of `time.monotonic`, in seconds; None if the caller has none.

    """
    return deadline is not None and time.monotonic() > deadline - CLOCK_TOLERANCE_S


class TimeLimit:
    """Deadline of one request: the caller's, or the server's time limit if that comes first.

    As a context manager, it turns a TimeoutError into the error for the caller.
    """

    __slots__ = ("_is_callers", "_timeout_s", "deadline")

    def __init__(self, timeout_s: float, deadline: float | None) -> None:
        """Starts the server's time limit.

        Args:
            timeout_s: The server's time limit in seconds.
            deadline: Deadline of the caller, on the clock of `time.monotonic`, in seconds; None if it has none.

        """
        self.deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._is_callers = deadline is not None and deadline < self.deadline
        if deadline is not None and self._is_callers:
            self.deadline = deadline

    @property
    def remaining_s(self) -> float:
        """Time until the deadline, in seconds; negative once it has passed."""
        return self.deadline - time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: object, traceback: object) -> None:
        if error_type is not None and issubclass(error_type, TimeoutError):
            raise self._error() from None

    def _error(self) -> TimeLimitExceeded:
        if self._is_callers:
            return CallerDeadlineExceeded()
        return TimeLimitExceeded(f"The call was not answered within the server's time limit of {self._timeout_s:g} s.")
