"""Streams over real gRPC: order, errors per request, back-pressure, cancellation, draining; streamed answers."""

import gc
import queue
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from mlflow_grpc import protos
from mlflow_grpc.errors import FieldViolation, InvalidPayload, ModelFailed
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.streams import READ_AHEAD
from tests.support.depth import examples
from tests.support.models import FunctionModel, GatedModel, PartsModel, PlainCodec
from tests.support.servers import Caller, serving

END = None


class Stream:
    """A call of predict_many whose requests are sent by the test."""

    def __init__(self, call: Caller, **more: Any) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.taken = threading.Semaphore(0)
        rpc: Any = call.channel.stream_stream("/MLflowStream/predict_many")
        self.call = rpc(self._pending_requests(), timeout=60, **more)

    def _pending_requests(self) -> Iterator[bytes]:
        while (data := self._requests.get()) is not END:
            yield data
            self.taken.release()

    def send(self, *texts: str | bytes) -> None:
        for text in texts:
            self._requests.put(text if isinstance(text, bytes) else data_of(text))

    def end(self) -> None:
        self._requests.put(END)

    def next(self) -> Any:
        return protos.Output.FromString(next(self.call))

    def remaining(self) -> list[Any]:
        return [protos.Output.FromString(data) for data in self.call]


def data_of(text: str) -> bytes:
    data: bytes = protos.Input(value=text).SerializeToString()
    return data


def many(call: Caller, *texts: str | bytes, **more: Any) -> list[Any]:
    """Returns the answers to a stream of these requests."""
    rpc: Any = call.channel.stream_stream("/MLflowStream/predict_many")
    requests = (text if isinstance(text, bytes) else data_of(text) for text in texts)
    return [protos.Output.FromString(data) for data in rpc(requests, timeout=60, **more)]


@pytest.fixture
def gated():
    model = GatedModel()
    with serving(model, PlainCodec(), threads=4) as server, Caller(server.address) as call:
        yield model, server, call
        model.let_go()


def admission_of(server: Any) -> Any:
    (entry,) = server.server.catalog.entries
    return entry.engine.admission


def test_answers_come_in_order():
    """Answers come in order, however long each takes and whichever thread runs it."""

    def slow(text: str) -> str:
        time.sleep(random.uniform(0, 0.002))
        return text

    with serving(FunctionModel(slow), PlainCodec(), threads=8) as server, Caller(server.address) as call:
        assert [output.value for output in many(call, *map(str, range(500)))] == list(map(str, range(500)))


def test_an_empty_stream_has_no_answers(gated):
    """A stream without requests has no answers and ends with OK."""
    _, _, call = gated
    assert many(call) == []


def test_answers_are_sent_as_soon_as_they_are_ready(gated):
    """An answer does not wait for the end of the stream or for later requests."""
    _, _, call = gated
    stream = Stream(call)
    stream.send("a")
    assert stream.next().value == "<a>"
    stream.send("b")
    assert stream.next().value == "<b>"
    stream.end()
    assert stream.remaining() == []


def test_a_failed_request_has_an_error_in_its_turn(caplog):
    """A request that is refused, raises, fails unexpectedly or does not parse has an error; the others are answered."""

    def picky(text: str) -> str:
        if text == "refused":
            raise InvalidPayload("It does not fit.", violations=(FieldViolation("a", "is missing"),))
        if text == "raised":
            raise ModelFailed("The model raised an exception.", error_class="ZeroDivisionError")
        if text == "unforeseen":
            raise LookupError("a secret")
        return text

    with serving(FunctionModel(picky), PlainCodec()) as server, Caller(server.address) as call:
        answers = many(
            call, "a", "refused", "raised", b"\xff\xff", "unforeseen", "b", metadata=(("x-request-id", "id-7"),)
        )
    errors = [(answer.error.code, answer.error.reason, answer.error.error_class) for answer in answers]
    invalid, internal = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.INTERNAL.value[0]
    assert [answer.value for answer in answers] == ["a", "", "", "", "", "b"]
    assert [answer.HasField("error") for answer in answers] == [False, True, True, True, True, False]
    assert errors == [
        (0, "", ""), (invalid, "BAD_REQUEST", ""), (internal, "INTERNAL_ERROR", "ZeroDivisionError"),
        (invalid, "MALFORMED_REQUEST", ""), (internal, "INTERNAL_ERROR", ""), (0, "", ""),
    ]  # fmt: skip
    violation = answers[1].error.field_violations[0]
    assert (violation.field, violation.description) == ("a", "is missing")
    assert "secret" not in answers[4].error.message
    lines: list[Any] = [record for record in caplog.records if record.message == "request"]
    failed_lines = [(line.fields["place"], line.fields["request_id"], line.fields["status"]) for line in lines]
    assert failed_lines == [(2, "id-7", "INTERNAL"), (4, "id-7", "INTERNAL")]
    assert "a secret" in caplog.text


def test_reading_ahead_is_limited(gated):
    """While no answer is ready, a limited number of requests reaches the model's queue."""
    model, server, call = gated
    stream = Stream(call)
    stream.send(*(f"hold {number}" for number in range(2 * READ_AHEAD)))
    model.wait_until_entered(4)
    admission = admission_of(server)
    server.wait_until(lambda: admission.admitted_requests == READ_AHEAD)
    model.let_go()
    stream.end()
    assert len(stream.remaining()) == 2 * READ_AHEAD
    server.wait_until(lambda: (admission.admitted_requests, admission.open_calls) == (0, 0))


def test_a_stalled_reader_delays_only_itself(gated):
    """Unread answers fill the connection's window; then no further requests of that caller are read."""
    model, server, call = gated
    model.let_go()
    text = "x" * 40_000
    stream = Stream(call)
    stream.send(*[text] * 750)
    with Caller(server.address) as second_call:
        for _ in range(50):
            assert second_call("y") == "<y>"
        server.wait_until(lambda: admission_of(server).admitted_requests == 0)
        assert len(model.calls) < 500
    stream.end()
    assert len(stream.remaining()) == 750


def test_a_cancelled_stream_leaves_no_work(gated):
    """Requests that have not started never run."""
    model, server, call = gated
    stream = Stream(call)
    stream.send(*(f"hold {number}" for number in range(50)))
    model.wait_until_entered(4)
    admission = admission_of(server)
    server.wait_until(lambda: admission.admitted_requests == 50)
    stream.call.cancel()
    server.wait_until(lambda: (admission.admitted_requests, admission.open_calls) == (0, 0))
    model.let_go()
    assert call("after") == "<after>"
    assert len(model.calls) <= 4 + 4 * 4 + 1  # Includes threads that replace those of departed callers.
    assert call("again") == "<again>"


def test_the_deadline_of_a_stream_ends_it(gated):
    """The stream ends with DEADLINE_EXCEEDED after the answers before it."""
    _, server, call = gated
    rpc: Any = call.channel.stream_stream("/MLflowStream/predict_many")
    answers = rpc(iter([data_of("a"), data_of("hold")]), timeout=1)
    assert protos.Output.FromString(next(answers)).value == "<a>"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_until(lambda: admission_of(server).admitted_requests == 0)


def test_a_slow_request_has_an_error_in_its_turn():
    """The server's time limit applies to each request, and the stream continues."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=2, timeout_s=0.3) as server, Caller(server.address) as call:
        late, fine = many(call, "hold", "b")
        assert late.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        assert fine.value == "<b>"
        model.let_go()


def test_streams_wait_for_room_and_leave_some_for_calls():
    """A stream is never refused for lack of room, and uses at most half of it."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=1, queue_calls=10) as server, Caller(server.address) as call:
        streams = [Stream(call) for _ in range(3)]
        for stream in streams:
            stream.send(*(f"hold {number}" for number in range(20)))
            stream.end()
        model.wait_until_entered()
        admission = admission_of(server)
        server.wait_until(lambda: admission.admitted_requests == 5)
        alone = call.raw.future(data_of("alone"), timeout=30)
        server.wait_until(lambda: admission.admitted_requests == 6)
        model.let_go()
        assert protos.Output.FromString(alone.result()).value == "<alone>"
        for stream in streams:
            assert [output.value for output in stream.remaining()] == [f"<hold {number}>" for number in range(20)]


def test_a_large_request_is_not_overtaken():
    """A large request waits for its room, those behind it wait too, and then all are admitted together."""
    model = GatedModel()
    bounds: dict[str, Any] = {"queue_calls": 100, "queue_bytes": 2_000}
    with serving(model, PlainCodec(), threads=4, **bounds) as server, Caller(server.address) as call:
        admission = admission_of(server)
        held, large, small = (Stream(call) for _ in range(3))
        held.send("hold 1", "hold 2")
        model.wait_until_entered(2)
        large.send("x" * 999)
        server.wait_until(lambda: len(admission._queue) == 1)
        small.send("hold a", "hold b", "hold c")
        server.wait_until(lambda: len(admission._queue) == 2)
        assert admission.admitted_requests == 2
        model.let_go()
        for stream, count in ((held, 2), (large, 1), (small, 3)):
            stream.end()
            assert len(stream.remaining()) == count
        assert model.calls.index("x" * 999) == 2
        server.wait_until(lambda: (admission.admitted_requests, admission._bytes, len(admission._queue)) == (0, 0, 0))


def test_requests_that_wait_for_room_stop_reading():
    """Of a stream of large requests, only the admitted ones and one more are in memory."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=1, queue_bytes=4_000) as server, Caller(server.address) as call:
        stream = Stream(call)
        stream.send(*["hold" + "x" * 996] * 50)
        model.wait_until_entered()
        admission = admission_of(server)
        server.wait_until(lambda: len(admission._queue) == 1)
        assert admission.admitted_requests == 2
        model.let_go()
        stream.end()
        assert len(stream.remaining()) == 50


def test_a_cancelled_stream_gives_its_turn_to_the_next():
    """A stream that is cancelled at the moment of its admission passes its turn on."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=1, queue_calls=2) as server, Caller(server.address) as call:
        first, second, third = (Stream(call) for _ in range(3))
        first.send("hold")
        model.wait_until_entered()
        admission = admission_of(server)
        for waiting, stream in enumerate((second, third), start=1):
            stream.send("x")
            server.wait_until(lambda waiting=waiting: len(admission._queue) == waiting)
        second.call.cancel()
        model.let_go()
        third.end()
        assert [output.value for output in third.remaining()] == ["<x>"]
        first.end()
        assert [output.value for output in first.remaining()] == ["<hold>"]


def test_a_draining_server_answers_requests_it_has_read(gated):
    """A draining server answers the requests that it has read and ends the stream with UNAVAILABLE, also an idle one."""
    model, server, call = gated
    quiet, busy = Stream(call), Stream(call)
    quiet.send("a")
    assert quiet.next().value == "<a>"
    busy.send("hold 1", "hold 2")
    model.wait_until_entered(2)
    draining = threading.Thread(target=lambda: server.run(server.server.drain))
    draining.start()
    with pytest.raises(grpc.RpcError) as ended:
        quiet.next()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert draining.is_alive()
    model.let_go()
    assert [busy.next().value, busy.next().value] == ["<hold 1>", "<hold 2>"]
    with pytest.raises(grpc.RpcError) as ended:
        busy.next()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    draining.join(10)
    assert not draining.is_alive()


def test_a_stream_that_begins_as_the_server_drains(gated, monkeypatch):
    """A stream whose reader has not run yet when the drain begins ends at once, and leaves nothing unfinished."""
    _, _, call = gated
    register = GrpcCall.on_drain

    def register_and_drain(grpc_call: GrpcCall, stop: Any) -> None:
        register(grpc_call, stop)
        grpc_call.drain()

    monkeypatch.setattr(GrpcCall, "on_drain", register_and_drain)
    stream = Stream(call)
    stream.send("x")
    with pytest.raises(grpc.RpcError) as ended:
        stream.next()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    gc.collect()  # Coroutines that were never awaited would be reported here.


def test_requests_waiting_for_room_are_answered_on_drain():
    """All requests that were read are answered, and no more are read."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=1, queue_calls=2) as server, Caller(server.address) as call:
        first, *others = (Stream(call) for _ in range(4))
        first.send("hold")
        model.wait_until_entered()
        for waiting, stream in enumerate(others, start=1):
            stream.send("x")
            server.wait_until(lambda waiting=waiting: len(admission_of(server)._queue) == waiting)
        draining = threading.Thread(target=lambda: server.run(server.server.drain))
        draining.start()
        server.wait_until(lambda: admission_of(server).stage.name == "DRAINING")
        model.let_go()
        for stream, expected in ((first, "<hold>"), *((stream, "<x>") for stream in others)):
            assert stream.next().value == expected
            with pytest.raises(grpc.RpcError) as ended:
                stream.next()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        draining.join(10)
        assert not draining.is_alive()


def test_many_requests_in_four_streams(gated):
    """No request is lost, swapped or answered twice; `make stress` has a hundred thousand."""
    model, _, call = gated
    model.let_go()
    count = examples(500)
    answers_by_stream: dict[int, list[str]] = {}

    def run(stream: int) -> None:
        answers_by_stream[stream] = [
            output.value for output in many(call, *(f"{stream} {number}" for number in range(count)))
        ]

    threads = [threading.Thread(target=run, args=(stream,)) for stream in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers_by_stream == {stream: [f"<{stream} {number}>" for number in range(count)] for stream in range(4)}


@pytest.fixture
def parts():
    model = PartsModel()
    with serving(model, PlainCodec(), threads=1, timeout_s=5) as server, Caller(server.address) as call:
        yield model, server, call


def stream_of(call: Caller, text: str, **more: Any) -> Any:
    rpc: Any = call.channel.unary_stream("/MLflowStream/predict_stream")
    return rpc(data_of(text), **{"timeout": 60, **more})


def text_of(data: Any) -> str:
    return str(protos.Output.FromString(data).value)


def test_chunks_are_sent_as_soon_as_they_are_made(parts):
    """The first chunk arrives before the second one is made."""
    model, _, call = parts
    answers = stream_of(call, "one hold two")
    assert text_of(next(answers)) == "one"
    assert model.held.acquire(timeout=30)
    assert model.made == ["one"]
    model.gate.release()
    assert list(map(text_of, answers)) == ["hold", "two"]
    assert model.closed.wait(10)


def test_a_departed_caller_closes_the_models_iterator(parts):
    """The iterator is closed in a thread of the model after the chunk in progress, and the thread is free for others."""
    model, server, call = parts
    answers = stream_of(call, "one hold two")
    assert text_of(next(answers)) == "one"
    assert model.held.acquire(timeout=30)
    answers.cancel()
    server.wait_until(lambda: admission_of(server).admitted_requests == 0)
    assert not model.closed.is_set()
    model.gate.release()
    assert model.closed.wait(10)
    assert model.closed_in.startswith("model-")
    assert model.made == ["one", "hold"]
    assert call("x") == "x"


def test_an_iterator_abandoned_between_chunks_is_closed(parts):
    """A reader leaves after it has stopped reading; the iterator is closed."""
    model, server, call = parts
    answers = stream_of(call, " ".join(["x" * 60_000] * 50))
    next(answers)
    server.wait_until(lambda: len(model.made) > 1)
    answers.cancel()
    assert model.closed.wait(10)
    assert model.closed_in.startswith("model-")
    assert len(model.made) < 50


def test_a_slow_reader_occupies_no_thread(parts):
    """With one thread, another call is answered while a streamed answer is half read."""
    model, server, call = parts
    answers = stream_of(call, " ".join(["x" * 60_000] * 50))
    next(answers)
    server.wait_until(lambda: len(model.made) > 1)
    with Caller(server.address) as second_call:
        assert second_call("y") == "y"
    assert len(model.made) < 50
    assert len(list(answers)) == 49


def test_an_error_follows_the_chunks_before_it(parts):
    """An error after some chunks is the status of the call."""
    _, _, call = parts
    answers = stream_of(call, "one raise")
    assert text_of(next(answers)) == "one"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_a_slow_chunk_ends_the_call():
    """The server's time limit applies to each chunk."""
    model = PartsModel()
    with serving(model, PlainCodec(), threads=1, timeout_s=0.3) as server, Caller(server.address) as call:
        with pytest.raises(grpc.RpcError) as caught:
            list(stream_of(call, "one hold two"))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.3 s" in (caught.value.details() or "")
        model.gate.release()
        assert model.closed.wait(10)


def test_a_stream_without_a_free_thread_ends_in_time():
    """If all threads are busy, the error comes at the time limit, because an iterator that never started needs no
    closing."""
    model = PartsModel()
    with serving(model, PlainCodec(), threads=1, timeout_s=0.3) as server, Caller(server.address) as call:
        hung = [stream_of(call, "hold") for _ in range(6)]
        began = time.monotonic()
        for answers in hung:
            with pytest.raises(grpc.RpcError) as caught:
                list(answers)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 10
        server.wait_until(lambda: admission_of(server).admitted_requests == 0)
        for _ in hung:
            model.gate.release()


def test_models_without_predict_stream_are_unimplemented(gated):
    """A model without `predict_stream` is UNIMPLEMENTED, and the error names the method to call."""
    _, _, call = gated
    with pytest.raises(grpc.RpcError) as caught:
        list(stream_of(call, "x"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "predict" in (caught.value.details() or "")
