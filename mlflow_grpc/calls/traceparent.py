"""The header `traceparent` of a call, as in W3C Trace Context (https://www.w3.org/TR/trace-context/#traceparent-header).

Rule of this module: an invalid header is ignored, as the recommendation requires.
"""

import re

from mlflow_grpc.telemetry.traces import SpanId

KEY, STATE_KEY = "traceparent", "tracestate"

LENGTH = 55
"""Length of a version 00 header, in characters; later versions may append to it after a dash."""

SAMPLED = 0x01
"""The flag of a sampled trace."""

_PATTERN = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?",
)


def trace_id(header: str) -> str | None:
    """Returns the trace id of a `traceparent`, 32 hexadecimal digits; None if the header is invalid."""
    match = _match(header)
    return None if match is None else match[2]


def span_id(header: str) -> SpanId | None:
    """Returns the caller's span in a `traceparent`; None if the header is invalid."""
    match = _match(header)
    if match is None:
        return None
    return SpanId(int(match[2], 16), int(match[3], 16), is_sampled=bool(int(match[4], 16) & SAMPLED))


def _match(header: str) -> re.Match[str] | None:
    match = _PATTERN.fullmatch(header) if len(header) >= LENGTH else None
    return None if match is None or (match[1] == "00" and len(header) != LENGTH) else match
