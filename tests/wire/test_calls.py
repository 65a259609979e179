"""Real gRPC against a server in this process: calls, deadlines, cancellation, odd messages, limits."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from mlflow_grpc import protos
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
    """Begins a call and does not wait for it."""
    return call.raw.future(protos.Input(value=text).SerializeToString(), **more)


def code(future):
    error = future.exception()
    return error.code() if error else grpc.StatusCode.OK


def test_a_call(gated):
    """A string in, a string out, and the request id in the trailers."""
    _, _, call = gated
    data, sent = call.raw.with_call(protos.Input(value="é").SerializeToString(), metadata=(("x-request-id", "abc"),))
    assert protos.Output.FromString(data).value == "<é>"
    assert dict(sent.trailing_metadata())["x-request-id"] == "abc"


@pytest.mark.parametrize("request_id", ["", "x" * 129])
def test_a_request_id_that_is_no_good_is_replaced(gated, request_id):
    """Too long and empty ids are not repeated; the call gets one all the same."""
    _, _, call = gated
    _, sent = call.raw.with_call(protos.Input(value="x").SerializeToString(), metadata=(("x-request-id", request_id),))
    answered = dict(sent.trailing_metadata())["x-request-id"]
    assert answered != request_id
    assert len(answered) == 16


def test_hung_calls_hold_up_neither_others_nor_health(gated):
    """With every thread of the pool held by calls that were given up, a fresh call and health are answered."""
    model, _, call = gated
    for _ in range(3):
        hung = start(call, "hold", timeout=30)
        model.wait_until_entered()
        hung.cancel()
    assert call("fresh") == "<fresh>"
    health = call.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=1) == b"\x08\x01"


def test_one_slow_call_lets_others_pass(gated):
    """While one call runs, others are answered."""
    model, _, call = gated
    slow = start(call, "hold", timeout=30)
    model.wait_until_entered()
    assert call("fast") == "<fast>"
    model.let_go()
    assert protos.Output.FromString(slow.result()).value == "<hold>"


def test_the_server_s_time_limit(gated):
    """A call over the time limit is DEADLINE_EXCEEDED although the client would wait."""
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
    until_in_flight(server, 2)
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
    until_in_flight(server, 3)
    left.cancel()
    until_in_flight(server, 2)
    model.let_go()
    assert [code(holder) for holder in holders] == [grpc.StatusCode.OK] * 2
    assert call("after") == "<after>"
    assert "left" not in model.calls


def until_in_flight(server: InProcess, calls: int) -> None:
    """Returns once the server has so many calls in flight."""
    (entry,) = server.server.catalog.entries
    server.wait_until(lambda: entry.engine.admission.admitted_calls == calls)


def test_a_thousand_cancels(gated):
    """After a storm of cancellations nothing is left in flight and calls are answered."""
    _, server, call = gated
    for number in range(1000):
        future = start(call, f"{number}", timeout=30)
        future.cancel()
    until_in_flight(server, 0)
    assert call("after") == "<after>"


def test_messages_that_are_none():
    """1,000 random or cut messages: INVALID_ARGUMENT, INTERNAL or, where they happen to parse, OK; never UNKNOWN."""
    dice = random.Random(1)
    serialized = protos.Input(value="hello é").SerializeToString()
    seen = set()
    with serving(FunctionModel(lambda text: text), PlainCodec()) as server, Caller(server.address) as call:
        for _ in range(1000):
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
def test_a_message_that_does_not_parse_is_invalid_argument(gated, path, data):
    """On every service, with the details that every error has; grpc.aio by itself says UNKNOWN."""
    _, _, call = gated
    with pytest.raises(grpc.RpcError) as caught:
        call.channel.unary_unary(path)(data, timeout=10)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "grpc-status-details-bin" in dict(error.trailing_metadata())


def test_unknown_methods_are_unimplemented(gated):
    """For any service and method that there is not."""
    _, _, call = gated
    for path in ("/MLflow/Predict", "/MLflow/predict2", "/mlflow.MLflow/predict", "/x/y"):
        assert code(call.channel.unary_unary(path).future(b"", timeout=10)) is grpc.StatusCode.UNIMPLEMENTED


def test_the_message_limit_is_exact():
    """A message of the limit's size passes, one byte more is RESOURCE_EXHAUSTED."""
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
    """A compressed request is taken, and counts by its size after decompression."""
    with serving(FunctionModel(len), PlainCodec(), max_message_bytes=1 << 20) as server, Caller(server.address) as call:
        small, big = (protos.Input(value="x" * size).SerializeToString() for size in (1 << 19, 1 << 21))
        assert protos.Output.FromString(call.raw(small, compression=GZIP, timeout=30)).value == str(1 << 19)
        future = call.raw.future(big, compression=GZIP, timeout=30)
        assert code(future) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_large_answers():
    """An answer may be larger than the largest request."""
    with (
        serving(FunctionModel(lambda text: "y" * (8 << 20)), PlainCodec(), max_message_bytes=1 << 20) as server,
        Caller(server.address) as call,
    ):
        assert len(call("x")) == 8 << 20


def test_many_callers_get_their_own_answers():
    """2,000 calls, 32 at a time: each answer is for its own input."""
    with serving(FunctionModel(lambda text: text), PlainCodec()) as server, Caller(server.address) as call:
        texts = [f"input {number}" for number in range(2000)]
        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(call, texts)) == texts


def test_an_answer_that_is_no_utf_8_is_internal():
    """A lone surrogate in a plain-text answer has no form on the wire: INTERNAL, not UNKNOWN."""
    from mlflow_grpc.payload.codec import TextCodec

    with serving(FunctionModel(lambda text: "\ud800"), TextCodec()) as server, Caller(server.address) as call:
        assert call.outcome("x")[0] == "INTERNAL"


def test_text_payloads():
    """With the text codec the string goes in as it is and str(answer) comes back; another format is refused."""
    from mlflow_grpc.payload.codec import TextCodec

    with serving(FunctionModel(lambda text: [text, 1.5]), TextCodec()) as server, Caller(server.address) as call:
        assert call('{"inputs": é') == "['{\"inputs\": é', 1.5]"
        assert call("x", mlflow_content_type="text/plain") == "['x', 1.5]"
        assert call.outcome("x", mlflow_content_type="application/json")[0] == "INVALID_ARGUMENT"


def test_errors_of_our_own_code_say_nothing():
    """A defect of the server is INTERNAL with a request id; its exception stays in the log."""

    class Broken(PlainCodec):
        def decode(self, text, content_type):
            raise ZeroDivisionError("secret detail")

    with serving(FunctionModel(str), Broken()) as server, Caller(server.address) as call:
        status, message = call.outcome("x")
        assert status == "INTERNAL"
        assert "secret" not in str(message)
