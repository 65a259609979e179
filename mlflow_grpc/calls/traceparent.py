"""Trace id of a call, as in W3C Trace Context (https://www.w3.org/TR/trace-context/#traceparent-header).

Rule of this module: an invalid header is ignored, as the recommendation requires.
"""

import re

KEY = "traceparent"

LENGTH = 55
"""Length of a header of version 00, in characters; later versions may append to it after a dash."""

_PATTERN = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id(header: str) -> str | None:
    """Returns the trace id of a `traceparent`, 32 hexadecimal digits; None if the header is invalid."""
    if len(header) < LENGTH:
        return None
    match = _PATTERN.fullmatch(header)
    if match is None or (match[1] == "00" and len(header) != LENGTH):
        return None
    return match[2]
