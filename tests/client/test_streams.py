"""Streams against a real server: answers in order, errors in their places, ends of every kind."""

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
    """A server of a model with rows, one that gives its answer in parts, and one that answers with the text."""
    folder = tmp_path_factory.mktemp("models")
    zoo.save("rows_numbers", folder / "numbers")
    zoo.save("rows_params", folder / "params")
    zoo.save("tensor", folder / "tensor")
    models = [
        (ModelConfig(uri=str(folder / "numbers"), name="numbers", endpoint=True), None),
        (ModelConfig(uri=str(folder / "params"), name="params", endpoint=True), None),
        (ModelConfig(uri=str(folder / "tensor"), name="tensor", endpoint=True), None),
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
    """All that a stream gives, errors in their places."""
    answers_and_errors = []
    while True:
        try:
            answers_and_errors.append(next(answers))
        except PredictError as error:
            answers_and_errors.append(error)
        except StopIteration:
            return answers_and_errors


RECORDS = [{"a": 1, "b": 0.5}, {"b": 0.5}, {"a": 3, "b": 0.5}]


def test_errors_stand_in_their_places(client):
    """A record that fails raises what a call of its own would, and the stream goes on behind it."""
    model = client.model("numbers", request_id="mine")
    first, failed, last = outcomes(model.predict_many(RECORDS))
    assert [first, last] == [model.predict(RECORDS[0]), model.predict(RECORDS[2])]
    with pytest.raises(InvalidInput) as alone:
        model.predict(RECORDS[1])
    assert (type(failed), failed.__dict__) == (InvalidInput, alone.value.__dict__)
    assert "a: missing" in str(failed)


def test_errors_can_be_returned(client):
    """For plain loops."""
    answers_and_errors = list(client.model("numbers").predict_many(RECORDS, on_error="return"))
    assert [type(answer) for answer in answers_and_errors] == [dict, InvalidInput, dict]
    with pytest.raises(ValueError, match="on_error is 'raise' or 'return'; not 'ignore'"):
        list(client.model("numbers").predict_many(RECORDS, on_error="ignore"))


def test_what_the_model_raises_is_named(make_client):
    """By its type, in the place of the record."""

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


def test_params_are_for_all_records(client):
    """Each is answered as if it came with them alone."""
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
    """JSON of any form, and DataFrames; those that fail have the error of a call of their own."""
    payloads = [{"dataframe_records": [{"a": 1, "b": 0.5}]}, {"dataframe_records": [{"b": 1}]}, "nonsense"]
    first, *failed = outcomes(client.stream(payloads, model="numbers", request_id="mine"))
    assert first == client.predict(payloads[0], model="numbers")
    for payload, error in zip(payloads[1:], failed, strict=True):
        with pytest.raises(InvalidInput) as alone:
            client.predict(payload, model="numbers", request_id="mine")
        assert (type(error), error.__dict__) == (InvalidInput, alone.value.__dict__)
    assert list(client.stream_text(["a", "b"], model="text")) == ["a", "b"]


def test_answers_to_llm_payloads_come_bare(client):
    """Each as its own payload asks for."""
    payloads = ['{"prompt": "x"}', '{"inputs": [1]}']
    answers = ['{"predictions": [1]}', '{"predictions": [2]}']
    with (
        serving(FunctionModel(lambda text: answers[payloads.index(text)]), PlainCodec()) as server,
        Client(server.address) as second_client,
    ):
        assert list(second_client.stream(payloads)) == [{"predictions": [1]}, [2]]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"a": 1.5, "b": 1}, ValueError, r"^\[1\]: a: 1\.5"),
        ({"c": 1}, TypeError, r"^\[1\]: c: there is no such field"),
        (5, TypeError, r"^\[1\]: int is no record"),
    ],
)
def test_a_record_that_cannot_be_sent(client, bad, error, message):
    """Ends the stream with what is wrong with it and its place, behind the answers to those before."""
    answers = client.model("numbers").predict_many([RECORDS[0], bad, RECORDS[2]])
    assert next(answers) == client.model("numbers").predict(RECORDS[0])
    with pytest.raises(error, match=message):
        next(answers)
    assert list(answers) == []


def test_a_payload_that_is_too_large_to_be_sent(make_client, address):
    """Ends the stream as any that cannot be sent: all before it are answered, and its place is named."""
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


def test_one_record_is_no_iterable_of_records(client):
    """It is said what to do, not what the names of the fields are no records for."""
    with pytest.raises(TypeError, match="dict is one record, give it in a list"):
        next(client.model("numbers").predict_many({"a": 1, "b": 2.0}))


def test_an_error_of_the_client_s_own_stands_in_its_place(client):
    """Where errors are returned a record that cannot be sent does not end the stream: of types, and of payloads."""
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


def test_what_the_caller_s_records_raise(client):
    """Surfaces as it is, behind the answers to the records before."""

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
    """No answers."""
    assert list(client.model("numbers").predict_many([])) == []


def test_records_are_drawn_as_they_are_answered(client):
    """Not more than the server reads ahead and the connection holds; an endless iterable is fine."""
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
    # What a connection holds on the way is up to gRPC: its window grows to some megabytes.
    assert next(drawn) < 301 + READ_AHEAD + 200
    assert list(answers) == []


def test_closing_cancels(make_client):
    """The server is told: the model's own stream ends."""
    model = PartsModel()
    with serving(model, PlainCodec()) as server:
        with make_client(server.address).predict_stream("1 " * 1_000_000) as answers:
            assert next(answers) == 1
        assert model.closed.wait(30)
        assert len(model.made) < 1_000_000
        assert list(answers) == []


def test_parts(client):
    """Each when it is there, typed and as JSON; what the model raises ends them."""
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


def test_a_model_without_parts(client):
    """UNIMPLEMENTED, in both ways."""
    for call in (
        lambda: next(client.model("numbers").predict_stream(a=1, b=1.0)),
        lambda: next(client.predict_stream({"dataframe_records": [RECORDS[0]]}, model="numbers")),
    ):
        with pytest.raises(PredictError) as caught:
            call()
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_is_for_the_whole_stream(make_client, gated):
    """Where one is given; answers that came before it stay."""
    server, _ = gated
    answers = make_client(server.address, timeout_s=0.001).stream_text(iter(["a", "hold"]), timeout_s=2)
    assert next(answers) == "<a>"
    with pytest.raises(DeadlineExceeded):
        next(answers)
    assert list(answers) == []


def test_a_client_that_is_closed(make_client, gated):
    """Ends its streams; new ones cannot be opened."""
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
    """UNAVAILABLE, by way of next."""
    with pytest.raises(PredictError) as caught:
        list(make_client("127.0.0.1:1").stream_text(["a"]))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_server_that_leaves_answers_out(make_client, ending_server):
    """That is an error, not an end."""
    address, _ = ending_server
    answers = make_client(address).stream_text(itertools.repeat("a"))
    assert next(answers) == "a"
    with pytest.raises(ModelError, match="before it had answered them all, after 1"):
        next(answers)
    assert list(answers) == []


def test_a_status_that_ends_the_stream(make_client, ending_server):
    """Is raised as the server has sent it, also where records are still being sent; then there are no more answers."""
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
    """An asynchronous iterable is drawn as a plain one is; what it raises surfaces, and tasks can be cancelled."""

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


def test_a_stream_that_is_dropped_is_gone(address):
    """Nothing keeps the answers, the call or the records of a stream that nobody holds any more."""

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


def test_an_asynchronous_stream_that_is_dropped_is_closed(address):
    """Its records are drawn no more, and end; so are those of one that is closed while it is being opened."""

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
    """By threads and by tasks, from its first answer on: each answer goes to one of them."""
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
    """A line for each line that has something in it, errors in their places; the exit code tells of them."""
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
    assert run_command(*arguments, lines=good + b"\n\xff\n") == (2, [expected], "error: line 2: it is not UTF-8\n")


def test_a_line_that_is_too_large(address, monkeypatch):
    """Its error stands in its place, and the lines behind it are answered."""
    monkeypatch.setattr(command, "Client", partial(Client, max_message_bytes=1000))
    lines = b"a\n\nb\n" + b"x" * 998 + b"\nc\n"
    code, (first, second, failed, last), error = run_command("-a", address, "-m", "text", "--stream", lines=lines)
    assert (code, first, second, last, error) == (1, "a", "b", "c", "")
    assert "the message has 1001 bytes, and this client sends up to 1000" in json.loads(failed)["error"]["message"]


def test_the_command_writes_a_line_an_answer(address):
    """A text of several lines is a JSON string."""
    code, out, _ = run_command("-a", address, "-m", "lines", "--stream", lines=b'one\n{"two": 2}\n')
    assert (code, out) == (0, ["one", json.dumps('{"two":\n2}')])


def test_the_command_answers_as_lines_come(address):
    """Each line before the next is there, and an interrupt ends it while it waits for one."""
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


def test_the_command_writes_the_parts_of_one_answer(address, tmp_path):
    """With a payload --stream is one call, whose parts are lines; JSON and typed."""
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
    """A record a line; errors stand in their places, and a line that is no record ends the stream."""
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
    lines = b'{"a": 1, "b": 1}\n\na=1'
    code, out, error = run_command("-a", address, "-m", "numbers", "--stream", "--typed", lines=lines)
    assert (code, len(out)) == (2, 1)
    assert error.startswith("error: line 3: a typed call takes a record")


def test_parts_as_texts(make_client, address):
    """`predict_stream_text` gives them as the server wrote them."""
    with make_client(address).predict_stream_text('{"text": "one two"}', model="words") as answers:
        assert [json.loads(chunk) for chunk in answers] == [{"text": "one"}, {"text": "two"}]
