"""Real gRPC against a server in this process: calls, deadlines, cancellation, odd messages, limits."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from mlflow_grpc import protos
from tests.support.depth import examples
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import Caller, InProcess, serving

GZIP = grpc.Compression.Gzip


@pytest.fixture
def gated():
    """A model with a gate, its server, and a caller."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=2) as server, Caller(server.address) as call:
        yield model, server, call
        model.let_go()


def start(call, text, **more: Any):
    """Starts a call without waiting for it."""
    return call.raw.future(protos.Input(value=text).SerializeToString(), **more)


def code(future):
    error = future.exception()
    return error.code() if error else grpc.StatusCode.OK


def test_a_call_returns_text_and_request_id(gated):
    """A string is sent, a string comes back, and the trailers have the request id."""
    _, _, call = gated
    data, sent = call.raw.with_call(protos.Input(value="é").SerializeToString(), metadata=(("x-request-id", "abc"),))
    assert protos.Output.FromString(data).value == "<é>"
    assert dict(sent.trailing_metadata())["x-request-id"] == "abc"


@pytest.mark.parametrize("request_id", ["", "x" * 129])
def test_unusable_request_ids_are_replaced(gated, request_id):
    """Ids that are too long or empty are replaced by a new one."""
    _, _, call = gated
    _, sent = call.raw.with_call(protos.Input(value="x").SerializeToString(), metadata=(("x-request-id", request_id),))
    answered = dict(sent.trailing_metadata())["x-request-id"]
    assert answered != request_id
    assert len(answered) == 16


def test_hung_calls_delay_neither_others_nor_health(gated):
    """While abandoned calls hold every thread of the pool, a new call and a health check are answered."""
    model, _, call = gated
    for _ in range(3):
        hung = start(call, "hold", timeout=30)
        model.wait_until_entered()
        hung.cancel()
    assert call("fresh") == "<fresh>"
    health = call.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=1) == b"\x08\x01"


def test_a_slow_call_delays_no_other(gated):
    """Other calls are answered while one call runs."""
    model, _, call = gated
    slow = start(call, "hold", timeout=30)
    model.wait_until_entered()
    assert call("fast") == "<fast>"
    model.let_go()
    assert protos.Output.FromString(slow.result()).value == "<hold>"


def test_the_servers_time_limit(gated):
    """A call over the time limit is DEADLINE_EXCEEDED, even if the client would wait longer."""
    model = GatedModel()
    with serving(model, PlainCodec(), timeout_s=0.2) as server, Caller(server.address) as call:
        with pytest.raises(grpc.RpcError) as caught:
            call("hold", timeout=30)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.2 s" in error.details()
        model.let_go()


def test_expired_work_is_not_run(gated):
    """A call whose deadline passes while it waits for a thread never reaches the model."""
    model, server, call = gated
    holders = [start(call, "hold", timeout=30) for _ in range(2)]
    model.wait_until_entered(2)
    late = start(call, "late", timeout=0.1)
    assert code(late) is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until_in_flight(server, 2)
    model.let_go()
    assert [code(holder) for holder in holders] == [grpc.StatusCode.OK] * 2
    assert call("after") == "<after>"
    assert "late" not in model.calls


def test_cancelled_work_is_not_run(gated):
    """A call that is cancelled while it waits for a thread never reaches the model."""
    model, server, call = gated
    holders = [start(call, "hold", timeout=30) for _ in range(2)]
    model.wait_until_entered(2)
    left = start(call, "left", timeout=30)
    wait_until_in_flight(server, 3)
    left.cancel()
    wait_until_in_flight(server, 2)
    model.let_go()
    assert [code(holder) for holder in holders] == [grpc.StatusCode.OK] * 2
    assert call("after") == "<after>"
    assert "left" not in model.calls


def wait_until_in_flight(server: InProcess, calls: int) -> None:
    """Waits until that many calls are in flight."""
    (entry,) = server.server.catalog.entries
    server.wait_until(lambda: entry.engine.admission.admitted_requests == calls)


def test_cancellations_leave_no_call(gated):
    """After many cancellations no call is in flight, and new calls are answered."""
    _, server, call = gated
    for number in range(examples(1000)):
        future = start(call, f"{number}", timeout=30)
        future.cancel()
    wait_until_in_flight(server, 0)
    assert call("after") == "<after>"


def test_random_messages_are_never_unknown():
    """Random and truncated messages are INVALID_ARGUMENT, INTERNAL or, if they happen to parse, OK, and never
    UNKNOWN."""
    dice = random.Random(1)
    serialized = protos.Input(value="hello é").SerializeToString()
    seen = set()
    with serving(FunctionModel(lambda text: text), PlainCodec()) as server, Caller(server.address) as call:
        for _ in range(examples(1000)):
            data = (
                dice.randbytes(dice.randrange(40))
                if dice.random() < 0.5
                else serialized[: dice.randrange(len(serialized))]
            )
            seen.add(code(call.raw.future(data, timeout=30)))
        assert seen <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}
        assert seen > {grpc.StatusCode.OK}
        assert call("alive") == "alive"


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/MLflow/predict", b"\n\x02\xff\xfe"),
        ("/MLflow/predict", b"\xff"),
        ("/grpc.health.v1.Health/Check", b"\xff"),
        ("/grpc.health.v1.Health/List", b"\xff"),
    ],
)
def test_unparsable_messages_are_invalid_arguments(gated, path, data):
    """An unparsable message is INVALID_ARGUMENT with error details in every service; grpc.aio itself would answer
    UNKNOWN."""
    _, _, call = gated
    with pytest.raises(grpc.RpcError) as caught:
        call.channel.unary_unary(path)(data, timeout=10)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "grpc-status-details-bin" in dict(error.trailing_metadata())


def test_unknown_methods_are_unimplemented(gated):
    """Unknown services and methods are UNIMPLEMENTED."""
    _, _, call = gated
    for path in ("/MLflow/Predict", "/MLflow/predict2", "/mlflow.MLflow/predict", "/x/y"):
        assert code(call.channel.unary_unary(path).future(b"", timeout=10)) is grpc.StatusCode.UNIMPLEMENTED


def test_the_message_limit_is_exact():
    """A message of exactly the limit passes; one more byte is RESOURCE_EXHAUSTED."""
    limit = 4096
    with (
        serving(FunctionModel(len), PlainCodec(), max_message_bytes=limit) as server,
        Caller(server.address) as call,
    ):
        overhead = len(protos.Input(value="x" * limit).SerializeToString()) - limit
        size = limit - overhead
        assert call("x" * (size - 1)) == str(size - 1)
        assert call("x" * size) == str(size)
        assert call.outcome("x" * (size + 1))[0] == "RESOURCE_EXHAUSTED"


def test_compressed_requests():
    """A compressed request is accepted, and counts with its decompressed size."""
    with serving(FunctionModel(len), PlainCodec(), max_message_bytes=1 << 20) as server, Caller(server.address) as call:
        small, big = (protos.Input(value="x" * size).SerializeToString() for size in (1 << 19, 1 << 21))
        assert protos.Output.FromString(call.raw(small, compression=GZIP, timeout=30)).value == str(1 << 19)
        future = call.raw.future(big, compression=GZIP, timeout=30)
        assert code(future) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_answers_may_exceed_the_request_limit():
    """An answer may be larger than the largest request."""
    with (
        serving(FunctionModel(lambda text: "y" * (8 << 20)), PlainCodec(), max_message_bytes=1 << 20) as server,
        Caller(server.address) as call,
    ):
        assert len(call("x")) == 8 << 20


def test_many_callers_get_their_own_answers():
    """Of many calls, 32 at a time, each gets the answer to its own input."""
    with serving(FunctionModel(lambda text: text), PlainCodec()) as server, Caller(server.address) as call:
        texts = [f"input {number}" for number in range(examples(2000))]
        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(call, texts)) == texts


def test_answers_that_are_not_utf_8_are_internal():
    """A lone surrogate in a plain-text answer cannot be encoded: INTERNAL, not UNKNOWN."""
    from mlflow_grpc.payload.codec import TextCodec

    with serving(FunctionModel(lambda text: "\ud800"), TextCodec()) as server, Caller(server.address) as call:
        assert call.outcome("x")[0] == "INTERNAL"


def test_text_payloads():
    """The text codec passes the string unchanged and returns str(answer); it refuses other formats."""
    from mlflow_grpc.payload.codec import TextCodec

    with serving(FunctionModel(lambda text: [text, 1.5]), TextCodec()) as server, Caller(server.address) as call:
        assert call('{"inputs": é') == "['{\"inputs\": é', 1.5]"
        assert call("x", mlflow_content_type="text/plain") == "['x', 1.5]"
        assert call.outcome("x", mlflow_content_type="application/json")[0] == "INVALID_ARGUMENT"


def test_bugs_of_the_server_are_internal_without_details():
    """A bug of the server is INTERNAL with a request id; its exception is only logged."""

    class Broken(PlainCodec):
        def decode(self, text, content_type):
            raise ZeroDivisionError("secret detail")

    with serving(FunctionModel(str), Broken()) as server, Caller(server.address) as call:
        status, message = call.outcome("x")
        assert status == "INTERNAL"
        assert "secret" not in str(message)
