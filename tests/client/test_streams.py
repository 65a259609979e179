"""Streams with a real server: answers in order, errors per record, and all kinds of ends."""

import asyncio
import gc
import itertools
import json
import signal
import subprocess
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import pytest
from mlflow_grpc_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidInput,
    ModelError,
    PredictError,
    ResourceExhausted,
)
from mlflow_grpc_client._cli import command

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import ModelFailed
from mlflow_grpc.services.streams import READ_AHEAD
from tests.client.conftest import INTERRUPTIBLE
from tests.parity.test_typed import in_any_order
from tests.support import zoo
from tests.support.commands import predict_command
from tests.support.models import FunctionModel, GatedModel, PartsModel, PlainCodec
from tests.support.servers import serving, serving_models


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server with a model of rows, one that streams its answer, and one that returns the text."""
    folder = tmp_path_factory.mktemp("models")
    zoo.save("rows_numbers", folder / "numbers")
    zoo.save("rows_params", folder / "params")
    zoo.save("tensor", folder / "tensor")
    zoo.save("rows_every_column", folder / "columns")
    models = [
        (ModelConfig(uri=str(folder / "numbers"), name="numbers", endpoint=True), None),
        (ModelConfig(uri=str(folder / "params"), name="params", endpoint=True), None),
        (ModelConfig(uri=str(folder / "tensor"), name="tensor", endpoint=True), None),
        (ModelConfig(uri=str(folder / "columns"), name="columns", endpoint=True), None),
        (ModelConfig(class_path="tests.support.newer_models.Words", endpoint=True), None),
        (
            ModelConfig(uri="(in process)", name="text", endpoint=True),
            ServableModel(FunctionModel(lambda text: text), PlainCodec()),
        ),
        (
            ModelConfig(uri="(in process)", name="lines", endpoint=True),
            ServableModel(FunctionModel(lambda text: text.replace(" ", "\n")), PlainCodec()),
        ),
    ]
    with serving_models(models) as running:
        yield running.address


@pytest.fixture
def client(make_client, address):
    return make_client(address)


@pytest.fixture
def gated():
    model = GatedModel()
    with serving(model, PlainCodec(), threads=2) as server:
        yield server, model
        model.let_go()


def outcomes(answers):
    """Returns everything that a stream yields, with errors in their turn."""
    answers_and_errors = []
    while True:
        try:
            answers_and_errors.append(next(answers))
        except PredictError as error:
            answers_and_errors.append(error)
        except StopIteration:
            return answers_and_errors


RECORDS = [{"a": 1, "b": 0.5}, {"b": 0.5}, {"a": 3, "b": 0.5}]


def test_errors_are_raised_in_their_turn(client):
    """A failed record raises the error that it would have alone, and the stream continues."""
    model = client.model("numbers", request_id="mine")
    first, failed, last = outcomes(model.predict_many(RECORDS))
    assert [first, last] == [model.predict(RECORDS[0]), model.predict(RECORDS[2])]
    with pytest.raises(InvalidInput) as alone:
        model.predict(RECORDS[1])
    assert (type(failed), failed.__dict__) == (InvalidInput, alone.value.__dict__)
    assert "a: missing" in str(failed)


def test_errors_can_be_returned(client):
    """Errors can be returned, for simple loops."""
    answers_and_errors = list(client.model("numbers").predict_many(RECORDS, on_error="return"))
    assert [type(answer) for answer in answers_and_errors] == [dict, InvalidInput, dict]
    with pytest.raises(ValueError, match="on_error is 'raise' or 'return'; not 'ignore'"):
        list(client.model("numbers").predict_many(RECORDS, on_error="ignore"))


def test_errors_have_the_type_of_the_exception(make_client):
    """The error of a record has the type of the model's exception."""

    def answer(text):
        if text == "raise":
            raise ModelFailed("The model raised an exception.", error_class="LookupError")
        return text

    with serving(FunctionModel(answer), PlainCodec()) as server:
        answers = make_client(server.address).stream_text(["a", "raise", "b"])
        assert next(answers) == "a"
        with pytest.raises(ModelError, match=r"INTERNAL: The model raised an exception\. \(LookupError\)") as caught:
            next(answers)
        assert caught.value.error_class == "LookupError"
        assert next(answers) == "b"


def test_params_apply_to_all_records(client):
    """Each record is answered as if it had the params alone."""
    model, params = client.model("params"), {"top_k": 7}
    expected = [in_any_order(model.predict(a=index, params=params)) for index in range(3)]
    answers = model.predict_many(({"a": index} for index in range(3)), params=params)
    assert [in_any_order(answer) for answer in answers] == expected


def test_rows_of_a_tensor(client):
    """Records without a name are values of the only field."""
    rows = [[1.5, 2.0], [3.0, 4.0]]
    model = client.model("tensor")
    assert list(model.predict_many(rows)) == [model.predict(value=row) for row in rows]


def test_payloads_are_answered_as_by_predict(client):
    """JSON in any form and DataFrames have the answers and errors of single calls."""
    payloads = [{"dataframe_records": [{"a": 1, "b": 0.5}]}, {"dataframe_records": [{"b": 1}]}, "nonsense"]
    first, *failed = outcomes(client.stream(payloads, model="numbers", request_id="mine"))
    assert first == client.predict(payloads[0], model="numbers")
    for payload, error in zip(payloads[1:], failed, strict=True):
        with pytest.raises(InvalidInput) as alone:
            client.predict(payload, model="numbers", request_id="mine")
        assert (type(error), error.__dict__) == (InvalidInput, alone.value.__dict__)
    assert list(client.stream_text(["a", "b"], model="text")) == ["a", "b"]


def test_answers_to_llm_payloads_are_bare(client):
    """Each answer has the form that its own payload asks for."""
    payloads = ['{"prompt": "x"}', '{"inputs": [1]}']
    answers = ['{"predictions": [1]}', '{"predictions": [2]}']
    with (
        serving(FunctionModel(lambda text: answers[payloads.index(text)]), PlainCodec()) as server,
        Client(server.address) as second_client,
    ):
        assert list(second_client.stream(payloads)) == [{"predictions": [1]}, [2]]


def test_answers_after_a_payload_that_cannot_be_sent(make_client):
    """Each answer has the form that its own payload asks for, also after an LLM payload that was not sent."""
    with serving(FunctionModel(lambda text: '{"predictions": [2]}'), PlainCodec()) as server:
        client = make_client(server.address, max_message_bytes=1000)
        payloads = [{"prompt": "x" * 2000}, {"inputs": [1]}, '{"prompt": "\ud800"}', {"prompt": "x"}, {"inputs": [1]}]
        large, answer, surrogate, bare, last = client.stream(payloads, on_error="return")
    assert [type(large), type(surrogate)] == [InvalidInput] * 2
    assert [answer, bare, last] == [[2], {"predictions": [2]}, [2]]


def test_answers_after_one_that_cannot_be_read(make_client):
    """An answer that is not JSON is an error in its turn, and the stream continues to its regular end."""
    answers_by_text = {'{"inputs": 1}': "nonsense", '{"prompt": "x"}': '{"predictions": [1]}'}
    with serving(FunctionModel(lambda text: answers_by_text[text]), PlainCodec()) as server:
        failed, *bare = outcomes(make_client(server.address).stream(answers_by_text))
    assert isinstance(failed, ModelError)
    assert bare == [{"predictions": [1]}]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"a": 1.5, "b": 1}, ValueError, r"^\[1\]: a: 1\.5"),
        ({"c": 1}, TypeError, r"^\[1\]: c: there is no such field"),
        (5, TypeError, r"^\[1\]: int is not a record"),
    ],
)
def test_an_invalid_record_ends_the_stream(client, bad, error, message):
    """An invalid record ends the stream with its error and index, after the answers to those before."""
    answers = client.model("numbers").predict_many([RECORDS[0], bad, RECORDS[2]])
    assert next(answers) == client.model("numbers").predict(RECORDS[0])
    with pytest.raises(error, match=message):
        next(answers)
    assert list(answers) == []


def test_a_payload_over_the_limit_ends_the_stream(make_client, address):
    """A payload over the limit ends the stream with its index, after the answers to those before."""
    client = make_client(address, max_message_bytes=1000)
    texts = [*map(str, range(100)), "x" * 997]
    assert list(client.stream_text(texts, model="text")) == texts
    answers = client.stream_text([*texts, "x" * 998, "y"], model="text")
    assert list(itertools.islice(answers, len(texts))) == texts
    with pytest.raises(ValueError, match=r"^\[101\]: the message has 1001 bytes, and this client sends up to 1000"):
        next(answers)
    assert list(answers) == []
    unbounded = make_client(address, max_message_bytes=-1)
    assert list(unbounded.stream_text(["x" * 998], model="text")) == ["x" * 998]


def test_a_single_record_is_refused(client):
    """The error says how to pass a single record, and not that the names of its fields are not records."""
    with pytest.raises(TypeError, match="dict is one record, give it in a list"):
        next(client.model("numbers").predict_many({"a": 1, "b": 2.0}))


def test_client_errors_are_returned_in_their_turn(client):
    """With returned errors, a record that cannot be sent does not end the stream, for types and payloads."""
    model = client.model("numbers")
    bad = [{"a": 1.5, "b": 1}, {"c": 1}, 5]
    answers = list(model.predict_many([RECORDS[0], *bad, RECORDS[2]], on_error="return"))
    assert [answers[0], answers[-1]] == [model.predict(RECORDS[0]), model.predict(RECORDS[2])]
    assert all(isinstance(answer, InvalidInput) for answer in answers[1:-1])
    assert [answer.message.partition(" ")[0] for answer in answers[1:-1]] == ["[1]:", "[2]:", "[3]:"]
    assert isinstance(answers[1].__cause__, ValueError)
    good = {"inputs": {"a": [1], "b": [2.5]}}
    failed, answer = client.stream([{"inputs": {1, 2}}, good], model="numbers", on_error="return")
    assert isinstance(failed, InvalidInput)
    assert failed.message == "[0]: set has no JSON form"
    assert answer == client.predict(good, model="numbers")


def test_exceptions_of_the_callers_records(client):
    """An exception of the records is raised unchanged, after the answers to the records before."""

    def records():
        yield RECORDS[0]
        raise LookupError("mine")

    answers = client.model("numbers").predict_many(records())
    next(answers)
    with pytest.raises(LookupError, match="mine"):
        next(answers)
    assert list(answers) == []
    with pytest.raises(TypeError, match="not iterable"):
        next(client.model("numbers").predict_many(5))


def test_no_records(client):
    """A stream without records has no answers."""
    assert list(client.model("numbers").predict_many([])) == []


def test_records_are_drawn_lazily(client):
    """Records are drawn up to the server's read-ahead and the connection's window, so an endless iterable works."""
    drawn = itertools.count()
    large = "x" * 100_000

    def texts():
        while True:
            next(drawn)
            yield large

    with client.stream_text(texts(), model="text") as answers:
        assert next(answers) == large
        for _ in range(300):
            next(answers)
    # The amount in transit depends on gRPC, whose window grows to some megabytes.
    assert next(drawn) < 301 + READ_AHEAD + 200
    assert list(answers) == []


def test_closing_cancels(make_client):
    """The server is notified, and the model's own stream ends."""
    model = PartsModel()
    with serving(model, PlainCodec()) as server:
        with make_client(server.address).predict_stream("1 " * 1_000_000) as answers:
            assert next(answers) == 1
        assert model.closed.wait(30)
        assert len(model.made) < 1_000_000
        assert list(answers) == []


def test_chunks(client):
    """Each chunk arrives when it is made, typed and as JSON; an exception of the model ends the stream."""
    expected = [{"text": "a"}, {"text": "b"}]
    model = client.model("words")
    assert list(model.predict_stream(text="a b")) == expected
    assert list(model.predict_stream({"text": "a b"})) == expected
    assert list(client.predict_stream({"text": "a b"}, model="words")) == expected
    for answers in (model.predict_stream(text="a raise"), client.predict_stream({"text": "a raise"}, model="words")):
        assert next(answers) == expected[0]
        with pytest.raises(ModelError, match="ValueError"):
            next(answers)
        assert list(answers) == []


def test_a_model_without_predict_stream(client):
    """A streamed answer of a model without `predict_stream` fails with UNIMPLEMENTED, typed and as JSON."""
    for call in (
        lambda: next(client.model("numbers").predict_stream(a=1, b=1.0)),
        lambda: next(client.predict_stream({"dataframe_records": [RECORDS[0]]}, model="numbers")),
    ):
        with pytest.raises(PredictError) as caught:
            call()
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
def test_a_deadline_applies_to_the_stream(make_client, gated):
    """A deadline applies to the complete stream; earlier answers are kept."""
    server, _ = gated
    answers = make_client(server.address, timeout_s=0.001).stream_text(iter(["a", "hold"]), timeout_s=1)
    assert next(answers) == "<a>"
    with pytest.raises(DeadlineExceeded):
        next(answers)
    assert list(answers) == []


def test_closing_the_client_ends_its_streams(make_client, gated):
    """Closing a client ends its streams, and no new ones can be opened."""
    server, model = gated
    client = make_client(server.address)
    answers = client.stream_text(["a", "hold"])
    assert next(answers) == "<a>"
    model.wait_until_entered()
    closing = threading.Timer(0, client.close)
    closing.start()
    with pytest.raises(PredictError, match="The client is closed"):
        next(answers)
    closing.join()
    with pytest.raises(PredictError, match="The client is closed"):
        next(client.stream_text(["a"]))


def test_no_server(make_client, fast_retries):
    """The first `next` of a stream to a missing server raises UNAVAILABLE."""
    with pytest.raises(PredictError) as caught:
        list(make_client("127.0.0.1:1").stream_text(["a"]))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_missing_answers_are_an_error(make_client, ending_server):
    """A stream that ends before its last answer is an error."""
    address, _ = ending_server
    answers = make_client(address).stream_text(itertools.repeat("a"))
    assert next(answers) == "a"
    with pytest.raises(ModelError, match="before it had answered them all, after 1"):
        next(answers)
    assert list(answers) == []


def test_a_status_that_ends_the_stream(make_client, ending_server):
    """The status is raised as the server sent it, also while records are still being sent; no more answers follow."""
    address, status = ending_server
    status.append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    client = make_client(address)
    for _ in range(20):
        answers = client.stream_text(itertools.repeat("a" * 1000))
        assert next(answers) == "a" * 1000
        with pytest.raises(ResourceExhausted, match="the end"):
            next(answers)
        assert list(answers) == []


def test_asynchronous_records(address):
    """An asynchronous iterable works like a plain one: its exceptions are raised, and tasks can be cancelled."""

    async def texts():
        yield "a"
        yield "b"
        raise LookupError("mine")

    async def forever():
        yield "a"
        await asyncio.Event().wait()

    async def main():
        async with AsyncClient(address) as client:
            answers = client.stream_text(texts(), model="text")
            assert [await anext(answers), await anext(answers)] == ["a", "b"]
            with pytest.raises(LookupError, match="mine"):
                await anext(answers)
            assert [answer async for answer in answers] == []
            async with client.stream_text(forever(), model="text") as answers:
                assert await anext(answers) == "a"
                waiting = asyncio.create_task(anext(answers))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            assert [answer async for answer in answers] == []
            answers = client.stream_text(forever(), model="text")
            assert await anext(answers) == "a"
            waiting = asyncio.create_task(anext(answers, "over"))
            await asyncio.sleep(0)
            await answers.close()
            assert await waiting == "over"

    asyncio.run(main())


def test_an_abandoned_stream_is_freed(address):
    """Nothing keeps the answers, the call or the records of an abandoned stream alive."""

    class Texts:
        def __iter__(self):
            return itertools.repeat("x")

    with Client(address) as client:
        texts = Texts()
        answers = client.stream_text(texts, model="text")
        next(answers)
        gone = weakref.ref(answers)
        del answers
        gc.collect()
        assert gone() is None
        assert client.predict_text("x", model="text") == "x"


def test_an_abandoned_asynchronous_stream_is_closed(address):
    """Records of an abandoned stream are no longer drawn, and are closed; also if it is closed while it is being
    opened."""

    async def main():
        drawn, ended = asyncio.Event(), asyncio.Event()

        async def texts():
            try:
                while True:
                    drawn.set()
                    yield "x"
                    await asyncio.sleep(0)
            finally:
                ended.set()

        async with AsyncClient(address) as client:
            answers = client.stream_text(texts(), model="text")
            assert await anext(answers) == "x"
            del answers
            gc.collect()
            await asyncio.wait_for(ended.wait(), 30)
            drawn.clear()
            for close_after in range(3):
                answers = client.model("numbers").predict_many(texts())
                waiting = asyncio.create_task(anext(answers, "over"))
                for _ in range(close_after):
                    await asyncio.sleep(0)
                await answers.close()
                assert await asyncio.wait_for(waiting, 30) == "over"
            assert not drawn.is_set()
            cancelled = asyncio.create_task(anext(client.model("numbers").predict_many(texts())))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled

    asyncio.run(main())


def test_a_stream_can_be_shared(address):
    """Threads and tasks may share a stream from the first answer on; each answer goes to one of them."""
    texts = [str(number) for number in range(500)]
    with Client(address) as client, ThreadPoolExecutor(4) as pool:
        answers = client.stream_text(texts, model="text")
        answers_and_errors = list(itertools.chain.from_iterable(pool.map(lambda _: list(answers), range(4))))
    assert sorted(answers_and_errors) == sorted(texts)

    async def main():
        calls = []

        def records():
            calls.append(1)
            return iter(texts)

        class Texts:
            __iter__ = staticmethod(records)

        async def take(answers):
            return [answer async for answer in answers]

        async with AsyncClient(address) as client:
            answers = client.stream_text(Texts(), model="text")
            parts = await asyncio.gather(*(take(answers) for _ in range(4)))
        assert len(calls) == 1
        return [answer for batch in parts for answer in batch]

    assert sorted(asyncio.run(main())) == sorted(texts)


def run_command(*arguments, lines=b""):
    code, out, error = predict_command(*arguments, stdin=lines)
    return code, out.splitlines(), error


def test_the_command(address):
    """Each non-blank line has an output line, errors included; the exit code reports errors."""
    arguments = ("-a", address, "-m", "numbers", "--stream")
    good, bad = b'{"dataframe_records": [{"a": 1, "b": 0.5}]}', b'{"dataframe_records": [{"b": 0.5}]}'
    code, out, error = run_command(*arguments, lines=b"\n".join([good, b"", bad, good]))
    assert (code, error, len(out)) == (1, "", 3)
    with Client(address) as client:
        expected = client.predict_text(good.decode(), model="numbers")
        with pytest.raises(InvalidInput) as caught:
            client.predict_text(bad.decode(), model="numbers")
    assert (out[0], out[2]) == (expected, expected)
    (violation,) = caught.value.violations
    assert json.loads(out[1]) == {
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": caught.value.message,
            "reason": caught.value.reason,
            "error_class": caught.value.error_class,
            "violations": [{"field": violation.field, "description": violation.description}],
        }
    }
    assert run_command(*arguments, lines=good) == (0, [expected], "")
    assert run_command(*arguments, lines=b"") == (0, [], "")
    code, (first, failed, last), error = run_command(*arguments, lines=good + b"\n\xff\n" + good)
    assert (code, first, last, error) == (1, expected, expected, "")
    assert json.loads(failed)["error"]["message"] == "[1]: the bytes of the payload are not UTF-8 (at byte 0)"


def test_a_line_that_is_too_large(address, monkeypatch):
    """The error of a line over the limit comes in its turn, and later lines are answered."""
    monkeypatch.setattr(command, "Client", partial(Client, max_message_bytes=1000))
    lines = b"a\n\nb\n" + b"x" * 998 + b"\nc\n"
    code, (first, second, failed, last), error = run_command("-a", address, "-m", "text", "--stream", lines=lines)
    assert (code, first, second, last, error) == (1, "a", "b", "c", "")
    assert "the message has 1001 bytes, and this client sends up to 1000" in json.loads(failed)["error"]["message"]


def test_the_command_writes_one_line_per_answer(address):
    """The command writes an answer of several lines as a JSON string on one line."""
    code, out, _ = run_command("-a", address, "-m", "lines", "--stream", lines=b'one\n{"two": 2}\n')
    assert (code, out) == (0, ["one", json.dumps('{"two":\n2}')])


def test_the_command_answers_lines_as_they_arrive(address):
    """Each line is answered before the next one arrives, and an interrupt ends the wait for a line."""
    command = [*INTERRUPTIBLE, "-a", address, "-m", "text", "--stream"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin
        assert running.stdout
        assert running.stderr
        for line in (b"one\n", b"two\n"):
            running.stdin.write(line)
            running.stdin.flush()
            assert running.stdout.readline().strip() == line.strip()
        running.send_signal(signal.SIGINT)
        assert (running.wait(30), running.stderr.read()) == (130, b"")


def test_the_command_writes_the_chunks_of_one_answer(address, tmp_path):
    """--stream with a payload is one call, whose chunks are lines; as JSON and typed."""
    payload = '{"text": "one two raise"}'
    code, out, error = run_command("-a", address, "-m", "words", "--stream", '{"text": "one two"}')
    assert (code, [json.loads(line) for line in out], error) == (0, [{"text": "one"}, {"text": "two"}], "")
    (tmp_path / "payload.json").write_text('{"text": "one two"}')
    code, out, error = run_command("-a", address, "-m", "words", "--stream", "--typed", f"@{tmp_path / 'payload.json'}")
    assert (code, [json.loads(line) for line in out], error) == (0, [{"text": "one"}, {"text": "two"}], "")
    for typed in ([], ["--typed"]):
        code, out, error = run_command("-a", address, "-m", "words", "--stream", *typed, payload)
        assert (code, len(out)) == (1, 2)
        assert error.startswith("error: INTERNAL: The model raised an exception")
        code, out, error = run_command("-a", address, "-m", "numbers", "--stream", *typed, '{"a": 1, "b": 0.5}')
        assert (code, out) == (1, [])
        assert "UNIMPLEMENTED" in error


def test_the_command_streams_typed_records(address):
    """Each line is a record. Errors come in their turn, also for lines that are not records."""
    lines = b'{"a": 1, "b": 0.5}\n\n{"b": 0.5}\n{"a": 3, "b": 0.5}\n'
    code, out, error = run_command("-a", address, "-m", "numbers", "--stream", "--typed", lines=lines)
    with Client(address) as client:
        expected = client.model("numbers").predict(a=1, b=0.5)
    assert (code, error) == (1, "")
    assert in_any_order(json.loads(out[0])) == in_any_order(expected)
    assert json.loads(out[1])["error"]["violations"][0]["field"] == "a"
    assert len(out) == 3
    lines = b'{"a": 1, "b": 1}\n\n{"a": "x", "b": 1}\n{"a": 1, "b": 1}\n'
    code, out, error = run_command("-a", address, "-m", "numbers", "--stream", "--typed", lines=lines)
    assert (code, error, len(out)) == (1, "", 3)
    assert "a: str is not a whole number" in json.loads(out[1])["error"]["message"]
    lines = b'{"a": 1, "b": 1}\n\na=1\n\xff\n{"a": 1, "b": 1}\n'
    code, out, error = run_command("-a", address, "-m", "numbers", "--stream", "--typed", lines=lines)
    assert (code, error, len(out), out[3]) == (1, "", 4, out[0])
    messages = [json.loads(line)["error"]["message"] for line in out[1:3]]
    assert messages[0].startswith("[1]: a typed call takes a record in JSON")
    lines_of_bytes = b'{"binary": "%"}\n{"binary": "AA=="}\n'
    code, out, error = run_command("-a", address, "-m", "columns", "--stream", "--typed", lines=lines_of_bytes)
    assert (code, error, len(out)) == (1, "", 2)
    assert json.loads(out[0])["error"]["message"].startswith("[0]: binary: the model takes bytes")
    assert messages[1] == "[2]: the bytes of the payload are not UTF-8 (at byte 0)"


def test_chunks_as_texts(make_client, address):
    """`predict_stream_text` returns chunks unchanged."""
    with make_client(address).predict_stream_text('{"text": "one two"}', model="words") as answers:
        assert [json.loads(chunk) for chunk in answers] == [{"text": "one"}, {"text": "two"}]
