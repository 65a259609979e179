"""The trailer `endpoint-load-metrics-bin`, which reports the load of a server to load balancers.

gRPC's `weighted_round_robin` and Envoy's `client_side_weighted_round_robin` send more calls to the servers that report
less utilization for each of their calls. gRPC calls this backend metrics, the message is ORCA's OrcaLoadReport.
Sources: https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md and
https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto.

Rule of this module: it writes numbers that others have measured. The message has three fields of type double, so it
needs no generated code.
"""

import struct
from collections import deque

from mlflow_grpc.calls.open_calls import OpenCalls

KEY = "endpoint-load-metrics-bin"

WINDOW_SAMPLES = 10
"""Number of updates over which the rates are means: one second."""

_REPORT = struct.Struct("<BdBdBd")
_RPS_FRACTIONAL, _EPS, _APPLICATION_UTILIZATION = (number << 3 | 1 for number in (6, 7, 9))
"""Tags of the fields: their number, and the wire type of a double."""


class BackendMetrics:
    """The load report of one server."""

    def __init__(self, open_calls: OpenCalls) -> None:
        """Counts from the calls that have ended until now.

        Args:
            open_calls: Counts the calls of the server.

        """
        self._open_calls = open_calls
        self._totals: deque[tuple[float, int, int]] = deque(maxlen=WINDOW_SAMPLES + 1)

    def trailers(self, now: float, utilization: float) -> tuple[tuple[str, bytes], ...]:
        """Returns the trailer of the calls from now on.

        Args:
            now: On the clock of `time.monotonic`, in seconds.
            utilization: Utilization of the server, between 0 and 1.

        """
        self._totals.append((now, self._open_calls.ended_calls, self._open_calls.failed_calls))
        elapsed_s, ended, failed = (last - first for last, first in zip(self._totals[-1], self._totals[0], strict=True))
        rates = (ended / elapsed_s, failed / elapsed_s) if elapsed_s else (0.0, 0.0)
        return ((KEY, load_report(*rates, utilization)),)


def load_report(calls_per_s: float, errors_per_s: float, utilization: float) -> bytes:
    """Returns an OrcaLoadReport."""
    return _REPORT.pack(_RPS_FRACTIONAL, calls_per_s, _EPS, errors_per_s, _APPLICATION_UTILIZATION, utilization)
