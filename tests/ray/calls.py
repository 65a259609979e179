"""Calls whose complete outcome is compared between two addresses."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2  # noqa: F401 - the types of the details
from google.rpc.status_pb2 import Status

from mlflow_grpc import protos

ResultT = TypeVar("ResultT")

ROWS: dict[str, Any] = {
    "columns": ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"],
    "data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],
}

VARYING = ("server-timing", "endpoint-load-metrics-bin", "request_id")
"""Trailers that differ between two calls: times, the load, and the id that Ray Serve's wrapper adds."""

DETAILS = "grpc-status-details-bin"

FORMS = {"unary": "unary_unary", "answers": "unary_stream", "stream": "stream_stream"}

Outcome = tuple[list[bytes], str, str, dict[str, Any]]
"""Messages, status, its text, and trailers, with the details of errors as Python values."""


def text(payload: Any) -> bytes:
    """Serializes a payload as `Input`."""
    data: bytes = protos.Input(value=payload if isinstance(payload, str) else json.dumps(payload)).SerializeToString()
    return data


def outcome(address: str, form: str, path: str, *messages: bytes, timeout_s: float = 30.0, **metadata: Any) -> Outcome:
    """Makes a call and returns all that a caller sees of it.

    Args:
        address: Address of the server.
        form: "unary", "answers" for one message and a stream of answers, or "stream" for two streams.
        path: Path of the method.
        messages: Serialized requests.
        timeout_s: Time until the deadline, in seconds.
        metadata: Metadata as texts, with underscores for hyphens.

    """
    pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options) as channel:
        method: Any = getattr(channel, FORMS[form])(path)
        request = iter(messages) if form == "stream" else messages[0]
        answers: list[bytes] = []
        if form == "unary":
            call = method.future(request, timeout=timeout_s, metadata=pairs)
            if call.exception() is None:
                answers = [call.result()]
        else:
            call = method(request, timeout=timeout_s, metadata=pairs)
            with contextlib.suppress(grpc.RpcError):  # The status is read from the call.
                answers.extend(call)
        trailers = {key: value for key, value in call.trailing_metadata() or () if key not in VARYING}
        if DETAILS in trailers:
            trailers[DETAILS] = MessageToDict(Status.FromString(trailers[DETAILS]))
        return answers, call.code().name, call.details() or "", trailers


class Gate:
    """A step of the model `steps`, which a call enters and which the test ends."""

    def __init__(self, folder: Path, name: str) -> None:
        self._entered, self._leave = folder / f"{name}-entered", folder / f"{name}-leave"
        os.mkfifo(self._entered)
        os.mkfifo(self._leave)
        self.payload = {"inputs": ["step", str(self._entered), str(self._leave)]}

    def wait(self) -> None:
        """Waits until the model is in the step."""
        in_thread(self._entered.read_text).result(30)

    def open(self) -> None:
        """Lets the model go on."""
        in_thread(lambda: self._leave.write_text("go")).result(30)


def in_thread(function: Callable[[], ResultT]) -> Future[ResultT]:
    """Runs a function in a thread."""
    future: Future[ResultT] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def of_steps(address: str, payload: Any, *, timeout_s: float = 30.0) -> Outcome:
    """Calls the model `steps`."""
    return outcome(address, "unary", "/MLflow/predict", text(payload), timeout_s=timeout_s, mlflow_model="steps")


@contextmanager
def held(address: str, folder: Path, *, timeout_s: float = 30.0) -> Iterator[None]:
    """Keeps a call in the model during a block."""
    gate = Gate(folder, "held")
    call = in_thread(lambda: of_steps(address, gate.payload, timeout_s=timeout_s))
    gate.wait()
    try:
        yield
    finally:
        gate.open()
    assert call.result(30)[1] == "OK"


@contextmanager
def full(address: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Keeps as many calls in the server as it takes; yields the trailers of a call that was refused."""
    with held(address, folder):
        calls = {in_thread(lambda: of_steps(address, {"inputs": ["a", "b"]})) for _ in range(2)}
        (refused,), (waiting,) = wait(calls, timeout=30, return_when=FIRST_COMPLETED)
        assert refused.result()[1] == "RESOURCE_EXHAUSTED"
        yield refused.result()[3]
    assert waiting.result(30)[1] == "OK"
