"""Both clients against real servers over real gRPC: answers, errors, retries, deadlines, closing."""

import asyncio
import contextlib
import multiprocessing
import pickle
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from mlflow_grpc_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    FieldViolation,
    InvalidInput,
    ModelError,
    PredictError,
    ResourceExhausted,
    Unavailable,
    _wire,
)

from mlflow_grpc import protos
from mlflow_grpc.errors import FieldViolation as ServerViolation
from mlflow_grpc.errors import InvalidPayload, ServingError, Status
from mlflow_grpc.settings import Settings
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import Caller, InProcess, free_port, serving

CLASSES = {
    "INVALID_ARGUMENT": InvalidInput,
    "INTERNAL": ModelError,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
}


def raising(error):
    def function(text):
        raise error

    return serving(FunctionModel(function), PlainCodec())


@pytest.fixture
def echo():
    with serving(FunctionModel(lambda text: text), PlainCodec()) as server:
        yield server


@pytest.fixture
def gated():
    model = GatedModel()
    with serving(model, PlainCodec(), threads=8) as server:
        yield server, model
        model.let_go()


@pytest.fixture
def blackhole():
    """An address where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_text_goes_out_and_comes_back_as_it_is(make_client, echo):
    """Any characters, and megabytes of them."""
    client = make_client(echo.address)
    for text in ("", "é\u0000\U0001f600", "x" * 5_000_000):
        assert client.predict_text(text) == text


@pytest.mark.parametrize(
    ("answer", "predictions"),
    [
        ('{"predictions": [1, 2.5]}', [1, 2.5]),
        ('{"predictions": [1], "more": 2}', {"predictions": [1], "more": 2}),
        ('{"choices": []}', {"choices": []}),
        ('"text"', "text"),
    ],
)
def test_predictions_are_unwrapped(make_client, echo, answer, predictions):
    """What stands under `predictions` and nothing beside it; any other answer as a whole."""
    assert make_client(echo.address).predict(answer) == predictions


def test_nan_and_infinity_are_read(make_client, echo):
    """They stand unquoted in MLflow's answers."""
    predictions = make_client(echo.address).predict('{"predictions": [NaN, -Infinity]}')
    assert repr(predictions) == "[nan, -inf]"


def test_the_content_type_is_sent(make_client, scripted_server):
    """As the metadata key that the server reads."""
    make_client(scripted_server.address).predict_text("a\n1\n", content_type="text/csv")
    assert ("mlflow-content-type", "text/csv") in scripted_server.calls[0].invocation_metadata()


def test_metadata_is_sent(make_client, scripted_server):
    """Texts and bytes, beside what the client adds itself."""
    make_client(scripted_server.address).predict_text(
        "x", request_id="mine", metadata={"authorization": "Bearer x", "trace-bin": b"\xff"}
    )
    sent = dict(scripted_server.calls[0].invocation_metadata())
    assert (sent["authorization"], sent["trace-bin"], sent["x-request-id"]) == ("Bearer x", b"\xff", "mine")


def test_errors_carry_what_the_server_said(make_client, attempts):
    """Code, message, reason, class, violations, and the request id under which the server has logged the call."""
    error = InvalidPayload(
        "The payload does not fit.",
        reason="INVALID_PARAMETER_VALUE",
        error_class="SCHEMA_ENFORCEMENT_FAILED",
        violations=(ServerViolation("a", "must be long"), ServerViolation("params.é", "missing")),
    )
    with raising(error) as server, pytest.raises(InvalidInput) as caught:
        make_client(server.address).predict([1], request_id="my id")
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message == "The payload does not fit."
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"
    assert caught.value.error_class == "SCHEMA_ENFORCEMENT_FAILED"
    assert caught.value.violations == (FieldViolation("a", "must be long"), FieldViolation("params.é", "missing"))
    assert caught.value.request_id == "my id"
    assert str(caught.value) == (
        "INVALID_ARGUMENT: The payload does not fit. [a: must be long; params.é: missing] "
        "(SCHEMA_ENFORCEMENT_FAILED, request id my id)"
    )
    assert [fields["request_id"] for fields in attempts.fields] == ["my id"]


def test_a_request_id_of_the_server_s_making(make_client, attempts):
    """Without an id of the caller's the error has the one that stands in the server's log."""
    with raising(InvalidPayload("no")) as server, pytest.raises(InvalidInput) as caught:
        make_client(server.address).predict([1])
    assert caught.value.request_id == attempts.fields[0]["request_id"] != ""


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.UNAVAILABLE])
def test_only_unavailable_is_tried_again(make_client, attempts, status):
    """Every other status comes after one attempt, in its class."""
    with raising(ServingError("no", status=status)) as server, pytest.raises(PredictError) as caught:
        make_client(server.address).predict([1])
    assert caught.value.code is grpc.StatusCode[status.value]
    assert type(caught.value) is CLASSES.get(status.value, PredictError)
    assert attempts.statuses == [status.value]


def test_an_overloaded_server_is_tried_again_when_it_says(make_client, attempts):
    """The pause is the server's, not the client's own, and the call is answered once there is room."""
    model = GatedModel()
    with serving(model, PlainCodec(), queue_calls=1) as server, Caller(server.address) as call:
        first = call.raw.future(protos.Input(value="hold").SerializeToString(), timeout=30)
        model.wait_until_entered()
        attempts.then = lambda number: model.let_go()
        assert make_client(server.address).predict_text("second") == "<second>"
        first.result()
    refused = [fields for fields in attempts.fields if fields["status"] == "RESOURCE_EXHAUSTED"]
    assert refused
    assert refused[0]["reason"] == "REQUEST_LIMIT_EXCEEDED"


def test_a_server_that_is_loading_is_tried_again(make_client, attempts, loading):
    """A call that comes while the model is loaded is answered once it is."""

    def third_time(number):
        if number == 3:
            asyncio.get_running_loop().create_task(loading.host(FunctionModel(lambda text: text), PlainCodec()))

    attempts.then = third_time
    assert make_client(loading.address).predict_text("late") == "late"
    assert attempts.statuses == ["UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", "OK"]


@pytest.mark.usefixtures("fast_retries")
def test_retries_have_an_end(make_client, attempts, loading):
    """After five attempts the call fails; the next call gets as many."""
    client = make_client(loading.address)
    for calls in (1, 2):
        with pytest.raises(Unavailable, match="still being loaded"):
            client.predict_text("x")
        assert attempts.statuses == ["UNAVAILABLE"] * 5 * calls


def test_retries_stop_at_the_deadline(make_client, attempts, loading):
    """The pauses between attempts count."""
    with pytest.raises(PredictError) as caught:
        make_client(loading.address).predict_text("x", timeout_s=0.5)
    assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert 1 <= len(attempts.statuses) < 5


def test_the_client_s_deadline_applies_to_each_call(make_client, gated):
    """A call that is given no deadline has the client's, one that is given one has that."""
    server, model = gated
    client = make_client(server.address, timeout_s=0.5)
    with pytest.raises(DeadlineExceeded):
        client.predict_text("hold")
    model.wait_until_entered()
    model.let_go()
    assert client.predict_text("hold again", timeout_s=30) == "<hold again>"


def test_the_default_deadline_is_60_seconds(make_client, scripted_server):
    """The server is told of it; a health check has 5."""
    client = make_client(scripted_server.address)
    for method, lower, upper in ((client.predict_text, 50, 60), (client.health, 1, 5)):
        remaining: list[float] = []
        scripted_server.behaviour = lambda data, context, seen=remaining: seen.append(context.time_remaining()) or b""
        method("x")
        assert lower < remaining[0] < upper + 1  # gRPC rounds up.


def test_a_blackhole_ends_at_the_deadline(make_client, blackhole):
    """A peer that takes the connection and says nothing holds a call no longer than its deadline."""
    client = make_client(blackhole)
    for method in (client.predict_text, client.health):
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
            method("x", timeout_s=0.3)


@pytest.mark.usefixtures("fast_retries")
def test_a_refused_port(make_client):
    """Unavailable, with the address in the message."""
    port = free_port()
    client = make_client(f"127.0.0.1:{port}")
    for method in (client.predict_text, client.health):
        with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port}.*refused"):
            method("x")


def test_a_name_that_does_not_resolve(make_client):
    """Unavailable, with the name in the message."""
    with pytest.raises(Unavailable, match=r"no-such-host\.invalid"):
        make_client("no-such-host.invalid:50051", timeout_s=20).predict_text("x")


@pytest.mark.usefixtures("fast_retries")
def test_a_peer_that_hangs_up(make_client):
    """A port that closes every connection, as a plain client sees one that speaks TLS: Unavailable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(Unavailable):
            make_client(f"127.0.0.1:{listener.getsockname()[1]}").predict_text("x")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.usefixtures("fast_retries")
def test_a_server_that_goes_away(make_client):
    """A call in flight when the server stops is tried again and ends in Unavailable."""
    model = GatedModel()
    with ThreadPoolExecutor(1) as pool:
        with serving(model, PlainCodec()) as server:
            call = pool.submit(make_client(server.address).predict_text, "hold")
            model.wait_until_entered()
        with pytest.raises(Unavailable):
            call.result(30)
    model.let_go()


def test_a_server_that_comes_back(make_client):
    """A client that has lost its server finds the one that takes its place."""
    model = FunctionModel(lambda text: text)
    with serving(model, PlainCodec()) as server:
        client = make_client(server.address)
        assert client.predict_text("one") == "one"
    second_server = InProcess(Settings(model_uri="(in process)", port=server.server.port))
    second_server.start(model, PlainCodec())
    try:
        assert client.predict_text("two") == "two"
    finally:
        second_server.stop()


class Relay:
    """Passes bytes on from each connection of a listener to a port; each can be muted."""

    def __init__(self, listener, port):
        self.muted: list[threading.Event] = []
        self._listener, self._port = listener, port
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, function, *args):
        self._threads.append(threading.Thread(target=function, args=args))
        self._threads[-1].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                pair = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._port))
                muted = threading.Event()
                self._sockets += pair
                self.muted.append(muted)
                self._start(self._pump, *pair, muted)
                self._start(self._pump, *pair[::-1], muted)

    def _pump(self, source, sink, muted):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not muted.is_set():
                    sink.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in self._sockets:
            end.close()


def test_a_connection_that_died_silently(make_client, echo, monkeypatch):
    """Keepalive finds it out and the call is answered over a new connection, within its deadline."""
    monkeypatch.setattr("mlflow_grpc_client._options.KEEPALIVE_TIME_S", 0.5)
    monkeypatch.setattr("mlflow_grpc_client._options.KEEPALIVE_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener, Relay(listener, echo.server.port) as relay:
        client = make_client(f"127.0.0.1:{listener.getsockname()[1]}")
        assert client.predict_text("before") == "before"
        relay.muted[-1].set()
        assert client.predict_text("after", timeout_s=30) == "after"
        assert len(relay.muted) > 1
        client.close()


def test_a_closed_client_refuses_calls(make_client, echo):
    """At once, and closing it again does no harm."""
    client = make_client(echo.address)
    assert client.predict_text("x") == "x"
    client.close()
    client.close()
    for method in (client.predict_text, client.health, client.predict):
        with pytest.raises(PredictError, match="CANCELLED: The client is closed") as caught:
            method("x")
        assert caught.value.code is grpc.StatusCode.CANCELLED


def test_a_client_that_was_never_used_closes(make_client, blackhole):
    """Without having connected."""
    make_client(blackhole).close()


def test_closing_ends_calls_in_flight(make_client, gated):
    """Each in a PredictError, however many there are."""
    server, model = gated
    client = make_client(server.address)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.predict_text, f"hold {number}") for number in range(4)]
        model.wait_until_entered(4)
        client.close()
        for call in calls:
            with pytest.raises(PredictError, match="CANCELLED: The client is closed"):
                call.result(30)


def test_calls_run_side_by_side(make_client):
    """Eight calls of one client meet in the model."""
    barrier = threading.Barrier(8)
    with (
        serving(FunctionModel(lambda text: (barrier.wait(30), text)[1]), PlainCodec(), threads=8) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        texts = [f"{number}" for number in range(8)]
        assert list(pool.map(make_client(server.address).predict_text, texts)) == texts


def test_health(make_client, loading):
    """NOT_SERVING while the model is loaded, SERVING then; an unknown service is NOT_FOUND."""
    client = make_client(loading.address)
    assert client.health() == client.health("MLflow") == "NOT_SERVING"
    loading.run(loading.server.open)
    assert client.health() == client.health("MLflow") == "SERVING"
    with pytest.raises(PredictError) as caught:
        client.health("nonsense")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_a_health_check_is_not_tried_again(make_client, scripted_server):
    """It asks how things are now."""
    scripted_server.behaviour = lambda data, context: context.abort(grpc.StatusCode.UNAVAILABLE, "no")
    with pytest.raises(Unavailable):
        make_client(scripted_server.address).health()
    assert len(scripted_server.calls) == 1


def test_messages_over_the_client_s_limit(make_client):
    """RESOURCE_EXHAUSTED, whether it is the payload or the answer."""
    with serving(FunctionModel(lambda text: text * 2), PlainCodec()) as server:
        client = make_client(server.address, max_message_bytes=1000)
        for size in (1000, 600):
            with pytest.raises(PredictError, match="larger than max") as caught:
                client.predict_text("x" * size)
            assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.predict_text("x" * 400) == "x" * 800


def test_an_answer_that_is_not_json(make_client, echo):
    """Such as a server with --payload text gives: predict says so, predict_text hands it over."""
    client = make_client(echo.address)
    for text in ("plain", "[" * 100_000):
        with pytest.raises(ModelError, match="not JSON; predict_text"):
            client.predict(text)
    assert client.predict_text("plain") == "plain"


def test_an_answer_that_is_no_message(make_client, scripted_server):
    """INTERNAL, as gRPC would have it."""
    scripted_server.behaviour = lambda data, context: b"\xff"
    client = make_client(scripted_server.address)
    for method in (client.predict_text, client.health):
        with pytest.raises(ModelError, match="no answer of /"):
            method("x")


@pytest.mark.parametrize("details", [None, b"\xff", b"", status_pb2.Status(code=code_pb2.INTERNAL).SerializeToString()])
def test_errors_of_others(make_client, scripted_server, details):
    """What a proxy or another server says comes through, with details that are missing, empty or unreadable."""

    def fail(data, context):
        pairs = [("x-request-id", "theirs")] + ([("grpc-status-details-bin", details)] if details is not None else [])
        context.set_trailing_metadata(pairs)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "go away")

    scripted_server.behaviour = fail
    with pytest.raises(PredictError, match="PERMISSION_DENIED: go away") as caught:
        make_client(scripted_server.address).predict_text("x")
    assert (caught.value.reason, caught.value.violations, caught.value.request_id) == ("", (), "theirs")


def test_a_status_that_this_client_does_not_know(make_client, scripted_server):
    """A health status of a later protocol is told by its number."""
    scripted_server.behaviour = lambda data, context: b"\x08\x63"
    assert make_client(scripted_server.address).health() == "99"


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {"Upper": "x"}},
        {"metadata": {"": "x"}},
        {"metadata": {":path": "x"}},
        {"metadata": {"key": "two\nlines"}},
        {"metadata": {"key": "é"}},
        {"metadata": {"key": b"bytes"}},
        {"metadata": {"key-bin": "text"}},
        {"request_id": "é"},
        {"request_id": 5},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"timeout_s": 1e10},
        {"timeout_s": "5"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_options_that_cannot_be_sent(make_client, scripted_server, options):
    """A ValueError or TypeError before anything is sent; gRPC would call them INTERNAL, or wait for ever."""
    with pytest.raises((ValueError, TypeError)):
        make_client(scripted_server.address).predict("x", **options)
    assert scripted_server.calls == []


def test_lone_surrogates(make_client, scripted_server):
    """A text with one is refused as UnicodeEncodeError; in data they are sent as JSON escapes."""
    client = make_client(scripted_server.address)
    with pytest.raises(UnicodeEncodeError):
        client.predict_text("\ud800")
    assert scripted_server.calls == []
    assert client.predict(["\ud800"]) == {"inputs": ["\ud800"]}


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("", {}),
        ("http://localhost:50051", {}),
        ("https://localhost", {}),
        ("localhost:65536", {}),
        ("a\0b:1", {}),
        ("a\ud800:1", {}),
        ("localhost:1", {"timeout_s": 0}),
    ],
    ids=str,
)
def test_clients_that_cannot_be_made(make_client, address, options):
    """ValueError at once: gRPC would cut the name at NUL and take port 65536 for port 0."""
    with pytest.raises(ValueError, match=r"^the (address|timeout) is"):
        make_client(address, **options)


@pytest.mark.parametrize(
    "address", ["localhost:1", "[::1]:1", "dns:///a.example:1", "unix:/tmp/x:99999/s", "ipv4:1.2.3.4:1"]
)
def test_targets_of_grpc_are_taken(make_client, address):
    """In every spelling."""
    make_client(address)


def test_errors_can_be_pickled():
    """So that they come out of a process pool, with all that they carry."""
    error = InvalidInput(grpc.StatusCode.INVALID_ARGUMENT, "m", "r", "i", "c", (FieldViolation("f", "d"),))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), copy.__dict__) == (InvalidInput, str(error), error.__dict__)


def test_a_client_in_a_child_process(echo):
    """A program that starts processes the safe way may use the client in each."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(call_once, (echo.address,)) == "x"


def call_once(address):
    with Client(address) as client:
        return client.predict_text("x")


def test_details_of_any_length_are_read():
    """wire.status_details never raises, whatever bytes come."""
    status = status_pb2.Status(message="é" * 50).SerializeToString()
    for end in range(len(status)):
        _wire.status_details(status[:end])


def test_a_cancelled_task_stays_cancelled(gated):
    """Cancelling a task that waits for an answer is no PredictError, even if the client is closed at once."""
    server, model = gated

    async def main():
        client = AsyncClient(server.address)
        task = asyncio.create_task(client.predict_text("hold"))
        await asyncio.to_thread(model.wait_until_entered)
        task.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_timeout_of_asyncio_works(gated):
    """asyncio.timeout ends a call as it ends any other wait, and the client is still good."""
    server, _ = gated

    async def main():
        async with AsyncClient(server.address) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.predict_text("hold")
            return await client.predict_text("next")

    assert asyncio.run(main()) == "<next>"


def test_an_async_client_belongs_to_one_loop(echo):
    """It may be made before the loop runs; in a second loop it says so instead of hanging."""
    client = AsyncClient(echo.address)
    assert asyncio.run(client.predict_text("x")) == "x"
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(client.predict_text("x"))
    asyncio.run(client.close())
