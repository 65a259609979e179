"""The trace that a call belongs to, by W3C Trace Context (https://www.w3.org/TR/trace-context/#traceparent-header).

Rule of this module: a header that is not right is as if there were none, as the recommendation wants it.
"""

import re

KEY = "traceparent"

LENGTH = 55
"""Of a header of version 00, in characters; later versions may add to it behind another dash."""

_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id(header: str) -> str | None:
    """The trace id of a `traceparent`, 32 hexadecimal digits; None if it is not right."""
    if len(header) < LENGTH:
        return None
    match = _FORM.fullmatch(header)
    if match is None or (match[1] == "00" and len(header) != LENGTH):
        return None
    return match[2]
