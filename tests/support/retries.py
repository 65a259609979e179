"""The service config of docs/clients.md with the code that sets it, and a server that fails calls before it answers."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()
(CONFIG,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

PUSHBACK_S = 0.5
"""Time that the server asks for, longer than any first pause of the config."""

PREDICT = "/MLflow/predict"
TYPED = "/model_grpc_service.ModelgRPCService/iris_predict"
STREAM = "/MLflowStream/predict_stream"

CALLS: dict[tuple[str, str], str] = {
    (PREDICT, "UNAVAILABLE"): "answered",
    (PREDICT, "RESOURCE_EXHAUSTED"): "answered",
    (TYPED, "UNAVAILABLE"): "answered",
    (TYPED, "RESOURCE_EXHAUSTED"): "answered",
    (PREDICT, "RESOURCE_EXHAUSTED,never"): "RESOURCE_EXHAUSTED",
    (PREDICT, "INTERNAL"): "INTERNAL",
    (STREAM, "UNAVAILABLE"): "UNAVAILABLE",
}
"""Calls as method and payload, and how each ends with the config."""


def code_for(language: str) -> str:
    """Returns the code that the page's table has for a language."""
    (code,) = re.findall(rf"^\| {language} \| `([^`]*)`", PAGE, re.MULTILINE)
    return str(code)


class FailingServer(grpc.GenericRpcHandler):
    """Fails the first call of each method and payload with the status that the payload names, as the server would."""

    def __init__(self) -> None:
        self.address = ""
        self.arrived_at: dict[tuple[str, str], list[float]] = {}

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda data, context: self._answer(method, data.decode(), context))

    def _answer(self, method: str, payload: str, context: grpc.ServicerContext) -> bytes:
        arrived_at = self.arrived_at.setdefault((method, payload), [])
        arrived_at.append(time.monotonic())
        if len(arrived_at) == 1:
            status, _, never = payload.partition(",")
            if (
                status == "RESOURCE_EXHAUSTED"
            ):  # Only then, as the real server does: Java retries any status that has it.
                pushback = "-1" if never else str(round(PUSHBACK_S * 1000))
                context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
            context.abort(grpc.StatusCode[status], "no")
        return b"answered"

    def check(self, printed: str, *, has_config: bool) -> None:
        """Asserts how each call of a client ended, as it printed, and how often it arrived."""
        expected = {call: end if has_config else call[1].partition(",")[0] for call, end in CALLS.items()}
        assert dict(zip(CALLS, _spelled(printed), strict=True)) == expected
        attempts = {call: len(times) for call, times in self.arrived_at.items()}
        assert attempts == {call: 2 if end == "answered" else 1 for call, end in expected.items()}
        for (_, status), times in self.arrived_at.items():
            if status == "RESOURCE_EXHAUSTED" and has_config:
                assert times[1] - times[0] > PUSHBACK_S * 0.9


def _spelled(printed: str) -> list[str]:
    """Returns the lines that a client printed, with statuses spelled as in Python: Go prints `ResourceExhausted`."""
    return [
        line if line == "answered" else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", line).upper()
        for line in printed.splitlines()
    ]


@contextmanager
def failing_server() -> Iterator[FailingServer]:
    """Starts the server for a block."""
    handler = FailingServer()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield handler
    finally:
        server.stop(None).wait()
