"""Metrics of calls: of each gRPC method, with the names of go-grpc-prometheus, and of each HTTP route.

Rule of this module: series belong to the server's own methods and routes. No text from a caller becomes a label. Calls
are noted first, and counted many at a time. That takes a third of the time, because code and numbers are then in the
CPU's caches. Sources: https://github.com/grpc-ecosystem/go-grpc-middleware/tree/main/providers/prometheus
and, for HTTP, https://opentelemetry.io/docs/specs/semconv/http/http-metrics/.
"""

from collections import Counter
from collections.abc import Iterator

from mlflow_grpc.errors import Status
from mlflow_grpc.telemetry.exposition import Family, Kind, Labels, labels
from mlflow_grpc.telemetry.instruments import DURATIONS_S, Histogram, Instruments

CODES = ("OK", *Status)
"""Names of the gRPC statuses that the server returns."""

GO_CODES = {code: code.title().replace("_", "") for code in map(str, CODES)} | {"OK": "OK", "CANCELLED": "Canceled"}
"""Go's spelling of the statuses, for dashboards and alerts made for gRPC servers."""

_CODE_SUFFIXES = {code: "," + labels(grpc_code=name) for code, name in GO_CODES.items()}

HTTP_STATUSES = (
    *(200, 204, 206, 301, 302, 304, 307),
    *(400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499),
    *(500, 501, 503, 504),
)
"""Statuses of HTTP responses with their own series."""

OTHER = "_OTHER"
"""Label of HTTP methods and statuses without their own series, as in OpenTelemetry."""

_STATUSES = (*map(str, HTTP_STATUSES), OTHER)
_INDEX_BY_STATUS = {status: index for index, status in enumerate(HTTP_STATUSES)}

MAX_NOTES = 64
"""Maximum number of notes before they are counted."""

UNKNOWN = "unknown"
"""Label of a gRPC service and method that the server does not have."""


class GrpcMethod:
    """Metrics of one gRPC method. Until its first call, a method has only its counter of started calls."""

    __slots__ = (
        "_codes",
        "_ended",
        "_labels",
        "_received_total",
        "_seconds",
        "_sent_total",
        "_started_total",
        "received",
        "sent",
        "started",
    )

    def __init__(self, instruments: Instruments, families: "GrpcFamilies") -> None:
        """Reserves positions in memory. The method is shown once it has a name."""
        self._labels: str | None = None
        self.started = self.received = self.sent = 0
        """Calls and messages that have not been counted yet; added to directly by the dispatcher."""
        self._ended: list[tuple[str, float]] = []
        self._started_total = instruments.counter()
        self._received_total = instruments.counter()
        self._sent_total = instruments.counter()
        self._codes = {code: instruments.counter() for code in CODES}
        self._seconds = instruments.histogram(DURATIONS_S)
        families.started.add(lambda: self._labels, self._started_total.total)
        families.received.add(self._if_called, self._received_total.total)
        families.sent.add(self._if_called, self._sent_total.total)
        for code, counter in self._codes.items():
            families.handled.add(self._with_code(code), counter.total)
        families.seconds.add(self._if_called, self._seconds)

    def rename(self, path: str, *, client_streaming: bool, server_streaming: bool) -> None:
        """Sets the name of the method.

        Args:
            path: Its path on the wire.
            client_streaming: True if it takes a stream.
            server_streaming: True if it returns a stream.

        """
        service, _, method = path.removeprefix("/").partition("/")
        grpc_type = {
            (False, False): "unary",
            (True, False): "client_stream",
            (False, True): "server_stream",
            (True, True): "bidi_stream",
        }[client_streaming, server_streaming]
        self._labels = labels(grpc_type=grpc_type, grpc_service=service, grpc_method=method)

    def ended(self, code: str, duration_s: float) -> None:
        """Notes a call that has ended.

        Args:
            code: Name of its gRPC status.
            duration_s: Its duration in seconds.

        """
        self._ended.append((code, duration_s))
        if len(self._ended) >= MAX_NOTES:
            self.count()

    def count(self) -> None:
        """Counts the noted calls and messages."""
        if self.started or self.received or self.sent:
            self._started_total.add(self.started)
            self._received_total.add(self.received)
            self._sent_total.add(self.sent)
            self.started = self.received = self.sent = 0
        if self._ended:
            codes, durations_s = zip(*self._ended, strict=True)
            self._ended = []
            self._seconds.observe(*durations_s)
            for code, calls in Counter(codes).items():
                self._codes[code].add(calls)

    def _if_called(self) -> str | None:
        return self._labels if self._started_total.total() else None

    def _with_code(self, code: str) -> Labels:
        suffix = _CODE_SUFFIXES[code]
        return lambda: None if (text := self._if_called()) is None else text + suffix


class GrpcFamilies:
    """The metric families of gRPC calls."""

    def __init__(self) -> None:
        self.started = Family("grpc_server_started", Kind.COUNTER, "Calls that have started.")
        self.handled = Family(
            "grpc_server_handled", Kind.COUNTER, "Calls that have ended, by their status in Go's spelling (NotFound)."
        )
        self.received = Family("grpc_server_msg_received", Kind.COUNTER, "Messages received; a stream has many.")
        self.sent = Family("grpc_server_msg_sent", Kind.COUNTER, "Messages sent; a stream has many.")
        self.seconds = Family(
            "grpc_server_handling_seconds",
            Kind.HISTOGRAM,
            "Duration of calls in the server, from their start to their answer, in seconds.",
        )

    @property
    def all(self) -> tuple[Family, ...]:
        """Returns the families in the order of the output."""
        return self.started, self.handled, self.received, self.sent, self.seconds


class HttpRoute:
    """Metrics of one HTTP route."""

    def __init__(self, instruments: Instruments, seconds: Family, route: str, methods: tuple[str, ...]) -> None:
        """Reserves positions in memory. The series of a method and status is shown after its first request.

        Args:
            instruments: Makes the instruments.
            seconds: Family of the durations.
            route: Template of its path.
            methods: Methods with their own series.
        """
        self._by_method = {
            method: _HttpMethod(instruments, seconds, route, method) for method in dict.fromkeys((*methods, OTHER))
        }

    def ended(self, method: str, status: int, duration_s: float) -> None:
        """Counts a response that has been sent; its duration is in seconds."""
        (self._by_method.get(method) or self._by_method[OTHER]).ended(status, duration_s)


class _HttpMethod:
    """Metrics of one method of a route: for each status, a counter and a histogram of durations.

    The routes of a server have more than two thousand series, few of which are ever shown. Therefore a method reserves
    positions for all of its series together, and makes the instruments of a series for its first request.
    """

    __slots__ = ("_counts", "_instruments", "_method", "_route", "_seconds", "_start")

    def __init__(self, instruments: Instruments, seconds: Family, route: str, method: str) -> None:
        self._instruments, self._route, self._method = instruments, route, method
        self._counts = instruments.counters(len(_STATUSES))
        self._start = instruments.reserve(len(_STATUSES) * Histogram.size(DURATIONS_S))
        self._seconds: dict[int, Histogram] = {}
        seconds.add_shown(self._shown)

    def ended(self, status: int, duration_s: float) -> None:
        index = _INDEX_BY_STATUS.get(status, len(HTTP_STATUSES))
        self._counts.add(index)
        self._histogram(index).observe(duration_s)

    def _histogram(self, index: int) -> Histogram:
        if (histogram := self._seconds.get(index)) is None:
            start = self._start + index * Histogram.size(DURATIONS_S)
            self._seconds[index] = histogram = self._instruments.histogram_at(start, DURATIONS_S)
        return histogram

    def _shown(self) -> Iterator[tuple[str, Histogram]]:
        for index, count in enumerate(self._counts.totals()):
            if count:
                text = labels(
                    http_request_method=self._method,
                    http_route=self._route,
                    http_response_status_code=_STATUSES[index],
                )
                yield text, self._histogram(index)
