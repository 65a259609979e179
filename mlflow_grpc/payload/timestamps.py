"""Conversion of columns of times; `_mlflow_grpc_protocol.timestamps` converts single times.

Rule of this module: a conversion is exact, or there is none.
"""

from typing import Any

import numpy as np

NANOS = 10**9
_MIN_NUMPY_SECONDS, _MAX_NUMPY_SECONDS = -(2**63 // NANOS), 2**63 // NANOS - 1
"""The first and the last second of which 64 bits can count all nanoseconds."""


def column(seconds: list[int], nanos: list[int], nulls: list[int]) -> Any:
    """Converts a column of times to numpy's nanoseconds; None if a time is invalid or outside numpy's range.

    Args:
        seconds: Seconds since 1970.
        nanos: Additional nanoseconds.
        nulls: Indexes of null rows, which become NaT whatever is in the lists.
    """
    all_seconds, all_nanos = np.array(seconds, dtype=np.int64), np.array(nanos, dtype=np.int64)
    all_seconds[nulls] = all_nanos[nulls] = 0
    if all_seconds.min() < _MIN_NUMPY_SECONDS or all_seconds.max() > _MAX_NUMPY_SECONDS:
        return None
    if all_nanos.min() < 0 or all_nanos.max() >= NANOS:
        return None
    times = (all_seconds * NANOS + all_nanos).view("datetime64[ns]")
    times[nulls] = np.datetime64("NaT")
    return times
