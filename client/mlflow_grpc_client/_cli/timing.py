"""The bar chart of `mlflow-grpc-predict --timing`: where a call spent its time.

Rule of this module: it shows the times that the server measures. Source of their format:
https://www.w3.org/TR/server-timing/.
"""

import contextlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
from _mlflow_grpc_protocol.metadata import SERVER_TIMING_KEY

from mlflow_grpc_client._cli.output import complain

ASKS_FOR_TIMES = {SERVER_TIMING_KEY: "1"}
"""Metadata of calls that request their times."""

BAR_WIDTH = 40
"""Length of a bar for the complete time, in characters."""

_TIME = re.compile(r"([a-z]+);dur=([0-9.]+)")


class Timing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Interceptor that keeps the last call with times from the server."""

    def __init__(self) -> None:
        self._calls: list[tuple[Any, float | None]] = []  # With their durations for the client, if known.

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Makes a call and measures it."""
        started_at = time.monotonic()
        call = continuation(details, request)
        self._calls.append((call, (time.monotonic() - started_at) * 1000))
        return call

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Starts a call."""
        call = continuation(details, request)
        self._calls.append((call, None))
        return call

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        """Starts a call."""
        return self.intercept_unary_stream(continuation, details, requests)

    def show(self) -> None:
        """Prints the times of the last call, in milliseconds, to stderr; a warning if the server sends none."""
        for call, duration_ms in reversed(self._calls):
            text = dict(call.trailing_metadata() or ()).get(SERVER_TIMING_KEY, "")
            if times := {name: float(milliseconds) for name, milliseconds in _TIME.findall(text)}:
                with contextlib.suppress(OSError, ValueError):
                    print("\n".join(chart(times, duration_ms, _bar())), file=sys.stderr)
                return
        complain("the server sent no times; it may be older than this command", "warning")


def chart(times: dict[str, float], duration_ms: float | None, bar: str = "#") -> list[str]:
    """Returns the lines of the bar chart of times in milliseconds by name, of which `total` is the server's sum.

    Without the duration of the call for the client, the network has no bar.
    """
    parts = {name: milliseconds for name, milliseconds in times.items() if name != "total"}
    total_ms = times.get("total", sum(parts.values()))
    parts["server"] = max(0.0, total_ms - sum(parts.values()))  # Parsing, dispatch, threads, the event loop.
    if duration_ms is not None:
        parts["network"] = max(0.0, duration_ms - total_ms)
    whole_ms = max(sum(parts.values()), 0.001)
    lines = [
        f"{name:<8} {milliseconds:>9.3f} ms  {bar * round(BAR_WIDTH * milliseconds / whole_ms)}".rstrip()
        for name, milliseconds in parts.items()
    ]
    return [*lines, f"{'total':<8} {whole_ms:>9.3f} ms"]


def _bar() -> str:
    """Returns a block character, or a number sign if stderr cannot show one."""
    try:
        "█".encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except UnicodeError:
        return "#"
    return "█"
