"""Callers that leave at the moment when something is sent to them, which no test over a network can produce reliably."""

import asyncio
import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from mlflow_grpc import logs, protos
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.http.dispatch import HttpDispatcher
from mlflow_grpc.http.event_stream import EventStream
from mlflow_grpc.services import listener
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.settings import Settings

GONE = "Failed grpc_call_start_batch"
GRPC_LOG = logging.getLogger("grpc._cython.cygrpc")


def log_as_grpc_does(message: Any, error: BaseException) -> None:
    try:
        raise error
    except type(error):
        GRPC_LOG.exception(message)


def test_unsendable_answers_are_not_logged_by_grpc(caplog):
    """gRPC's log records about answers that cannot be sent are dropped, because any caller could fill the log with
    tracebacks. Its other errors are logged, and so are records whose message is an exception."""
    assert listener._is_no_callers_fault in GRPC_LOG.filters
    log_as_grpc_does("ExecuteBatchError raised in core by servicer method [/x/y]", cygrpc.ExecuteBatchError(GONE))
    assert not caplog.records
    log_as_grpc_does("Unexpected [ValueError] raised by servicer method [/x/y]", ValueError("x"))
    GRPC_LOG.error(ValueError("a crash"))
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("remaining_s", "status", "level"),
    [
        (None, "CANCELLED", logging.INFO),
        (5.0, "CANCELLED", logging.INFO),
        (0.0, "DEADLINE_EXCEEDED", logging.WARNING),
    ],
)
def test_unsendable_chunks_are_logged_as_cancelled(caplog, remaining_s, status, level):
    """A stream whose caller has left is logged like a cancelled one, or one over its deadline: in one line, without a
    traceback."""
    caplog.set_level(logging.INFO)
    method = protos.service("MLflowStream").methods_by_name["predict_many"]

    async def behaviour(request: Any, call: Any) -> None:
        await call.write(protos.Output(value="a part"))

    async def write(data: bytes) -> None:
        raise cygrpc.ExecuteBatchError(GONE)

    context = SimpleNamespace(
        invocation_metadata=lambda: (), time_remaining=lambda: remaining_s, write=write, peer=lambda: "ipv4:127.0.0.1:1"
    )

    async def requests() -> Any:
        yield b""

    handler: Any = RpcDispatcher(OpenCalls(), Settings(model_uri="(none)")).handler(
        "/MLflowStream/predict_many", method, behaviour
    )
    with pytest.raises(grpc.aio.InternalError):
        asyncio.run(handler.stream_stream(requests(), context))
    logs.calls.flush()
    (line,) = caplog.records
    assert (line.levelno, line.fields["status"], line.exc_info) == (level, status, None)


def test_a_stream_of_events_that_is_cancelled_at_its_end_is_logged_once(caplog):
    """The call has been answered when its last event is sent, whatever happens to that event."""
    caplog.set_level(logging.INFO)

    async def chunks() -> Any:
        yield "a"

    async def answer(*_: Any) -> EventStream:
        return await EventStream.start(chunks())

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(event: Any) -> None:
        if b"[DONE]" in event.get("body", b""):
            raise asyncio.CancelledError

    engine: Any = SimpleNamespace(check=lambda: None, open_call=lambda _: contextlib.nullcontext())
    entry: Any = SimpleNamespace(
        name="m", engine=engine, version_trailers=(), challenger=None, config=ModelConfig(uri="m", endpoint=True)
    )
    dispatcher = HttpDispatcher(OpenCalls(), max_bytes=100, max_arriving_bytes=100, shows_exceptions=False)
    endpoint = dispatcher.model_endpoint(answer, lambda _: entry)
    scope = {"type": "http", "method": "POST", "path": "/invocations", "scheme": "http", "headers": []}
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(endpoint(scope, receive, send))
    logs.calls.flush()
    assert [record.fields["status"] for record in caplog.records] == ["OK"]
