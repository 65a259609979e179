"""Both clients with real servers over real gRPC: answers, errors, retries, deadlines, closing."""

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
    PermissionDenied,
    PredictError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    errors,
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
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
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
    """An address that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_texts_are_unchanged(make_client, echo):
    """Megabytes of arbitrary characters pass unchanged."""
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
    """The value of `predictions` is returned if it is the only key; any other answer is returned whole."""
    assert make_client(echo.address).predict(answer) == predictions


def test_nan_and_infinity_are_read(make_client, echo):
    """NaN and Infinity are unquoted in MLflow's answers."""
    predictions = make_client(echo.address).predict('{"predictions": [NaN, -Infinity]}')
    assert repr(predictions) == "[nan, -inf]"


def test_the_content_type_is_sent(make_client, scripted_server):
    """The content type is sent in the metadata key that the server reads."""
    make_client(scripted_server.address).predict_text("a\n1\n", content_type="text/csv")
    assert ("mlflow-content-type", "text/csv") in scripted_server.calls[0].invocation_metadata()


def test_metadata_is_sent(make_client, scripted_server):
    """Texts and bytes are sent beside the client's own metadata."""
    make_client(scripted_server.address).predict_text(
        "x", request_id="mine", metadata={"authorization": "Bearer x", "trace-bin": b"\xff"}
    )
    sent = dict(scripted_server.calls[0].invocation_metadata())
    assert (sent["authorization"], sent["trace-bin"], sent["x-request-id"]) == ("Bearer x", b"\xff", "mine")


def test_errors_have_the_servers_details(make_client, attempts):
    """The error has code, message, reason, class, violations, and the request id of the server's log line."""
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


def test_the_server_makes_a_request_id(make_client, attempts):
    """Without an id from the caller, the error has the id in the server's log."""
    with raising(InvalidPayload("no")) as server, pytest.raises(InvalidInput) as caught:
        make_client(server.address).predict([1])
    assert caught.value.request_id == attempts.fields[0]["request_id"] != ""


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.UNAVAILABLE])
def test_only_unavailable_is_retried(make_client, attempts, status):
    """Every other status is raised after one attempt, in its class."""
    with raising(ServingError("no", status=status)) as server, pytest.raises(PredictError) as caught:
        make_client(server.address).predict([1])
    assert caught.value.code is grpc.StatusCode[status.value]
    assert type(caught.value) is CLASSES.get(status.value, PredictError)
    assert attempts.statuses == [status.value]


def test_an_overloaded_server_sets_the_retry_delay(make_client, attempts):
    """The retry delay is the server's, and the call is answered once there is room."""
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


def test_calls_to_a_loading_server_are_retried(make_client, attempts, loading):
    """A call that arrives while the model is being loaded is answered afterwards."""

    def third_time(number):
        if number == 3:
            asyncio.get_running_loop().create_task(loading.host(FunctionModel(lambda text: text), PlainCodec()))

    attempts.then = third_time
    assert make_client(loading.address).predict_text("late") == "late"
    assert attempts.statuses == ["UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", "OK"]


@pytest.mark.usefixtures("fast_retries")
def test_the_number_of_attempts_is_limited(make_client, attempts, loading):
    """A call fails after five attempts, and the next call has five again."""
    client = make_client(loading.address)
    for calls in (1, 2):
        with pytest.raises(Unavailable, match="still being loaded"):
            client.predict_text("x")
        assert attempts.statuses == ["UNAVAILABLE"] * 5 * calls


def test_retries_stop_at_the_deadline(make_client, attempts, loading):
    """The delays between attempts count toward the deadline."""
    with pytest.raises(PredictError) as caught:
        make_client(loading.address).predict_text("x", timeout_s=0.5)
    assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert 1 <= len(attempts.statuses) < 5


def test_the_clients_deadline_applies_to_each_call(make_client, gated):
    """A call without a deadline has the client's; its own deadline takes precedence."""
    server, model = gated
    client = make_client(server.address, timeout_s=0.5)
    with pytest.raises(DeadlineExceeded):
        client.predict_text("hold")
    model.wait_until_entered()
    model.let_go()
    assert client.predict_text("hold again", timeout_s=30) == "<hold again>"


def test_the_default_deadline_is_60_seconds(make_client, scripted_server):
    """The server receives the default deadline; that of a health check is 5 seconds."""
    client = make_client(scripted_server.address)
    for method, lower, upper in ((client.predict_text, 50, 60), (client.health, 1, 5)):
        remaining: list[float] = []
        scripted_server.behaviour = lambda data, context, seen=remaining: seen.append(context.time_remaining()) or b""
        method("x")
        assert lower < remaining[0] < upper + 1  # gRPC rounds up.


def test_a_blackhole_ends_at_the_deadline(make_client, blackhole):
    """A peer that accepts the connection and sends nothing delays a call until its deadline."""
    client = make_client(blackhole)
    for method in (client.predict_text, client.health):
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
            method("x", timeout_s=0.3)


@pytest.mark.usefixtures("fast_retries")
def test_a_refused_port(make_client):
    """A call to a port where nothing listens raises Unavailable with the address in its message."""
    port = free_port()
    client = make_client(f"127.0.0.1:{port}")
    for method in (client.predict_text, client.health):
        with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port}.*refused"):
            method("x")


def test_a_name_that_does_not_resolve(make_client):
    """A call to a name that does not resolve raises Unavailable with the name in its message."""
    with pytest.raises(Unavailable, match=r"no-such-host\.invalid"):
        make_client("no-such-host.invalid:50051", timeout_s=20).predict_text("x")


@pytest.mark.usefixtures("fast_retries")
def test_a_peer_that_hangs_up(make_client):
    """A port that closes every connection, like a TLS port for a cleartext client, is Unavailable."""
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
def test_a_server_that_stops(make_client):
    """A call in flight when the server stops is retried and ends in Unavailable."""
    model = GatedModel()
    with ThreadPoolExecutor(1) as pool:
        with serving(model, PlainCodec()) as server:
            call = pool.submit(make_client(server.address).predict_text, "hold")
            model.wait_until_entered()
        with pytest.raises(Unavailable):
            call.result(30)
    model.let_go()


def test_a_server_that_is_replaced(make_client):
    """A client that has lost its server finds the one that replaces it."""
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
    """Forwards bytes from each connection of a listener to a port; each connection can be muted."""

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


@pytest.mark.slow
def test_a_connection_that_died_silently(make_client, echo, monkeypatch):
    """Keepalive detects the dead connection, and the call is answered over a new one within its deadline."""
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
    """Calls are refused at once, and closing again is harmless."""
    client = make_client(echo.address)
    assert client.predict_text("x") == "x"
    client.close()
    client.close()
    for method in (client.predict_text, client.health, client.predict):
        with pytest.raises(PredictError, match="CANCELLED: The client is closed") as caught:
            method("x")
        assert caught.value.code is grpc.StatusCode.CANCELLED


def test_a_client_that_was_never_used_closes(make_client, blackhole):
    """A client that never connected can be closed."""
    make_client(blackhole).close()


def test_closing_ends_calls_in_flight(make_client, gated):
    """Every call in flight ends in a PredictError."""
    server, model = gated
    client = make_client(server.address)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.predict_text, f"hold {number}") for number in range(4)]
        model.wait_until_entered(4)
        client.close()
        for call in calls:
            with pytest.raises(PredictError, match="CANCELLED: The client is closed"):
                call.result(30)


def test_calls_run_concurrently(make_client):
    """Eight calls of one client run in the model at the same time."""
    barrier = threading.Barrier(8)
    with (
        serving(FunctionModel(lambda text: (barrier.wait(30), text)[1]), PlainCodec(), threads=8) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        texts = [f"{number}" for number in range(8)]
        assert list(pool.map(make_client(server.address).predict_text, texts)) == texts


def test_health(make_client, loading):
    """NOT_SERVING while the model is being loaded, then SERVING; an unknown service is NOT_FOUND."""
    client = make_client(loading.address)
    assert client.health() == client.health("MLflow") == "NOT_SERVING"
    loading.run(loading.server.open)
    assert client.health() == client.health("MLflow") == "SERVING"
    with pytest.raises(PredictError) as caught:
        client.health("nonsense")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_health_checks_are_not_retried(make_client, scripted_server):
    """A health check is not retried, because it asks for the current state."""
    scripted_server.behaviour = lambda data, context: context.abort(grpc.StatusCode.UNAVAILABLE, "no")
    with pytest.raises(Unavailable):
        make_client(scripted_server.address).health()
    assert len(scripted_server.calls) == 1


@pytest.mark.slow
def test_messages_over_the_clients_limit(make_client):
    """A payload or answer over the limit is RESOURCE_EXHAUSTED. Such a payload is not sent, so gRPC retries nothing."""
    with serving(FunctionModel(lambda text: text * 2), PlainCodec()) as server:
        client = make_client(server.address, max_message_bytes=1000)
        with pytest.raises(ResourceExhausted, match="larger than max"):
            client.predict_text("x" * 600)
        too_large = "Nothing was sent: the message has 1003 bytes, and this client sends up to 1000"
        with pytest.raises(ResourceExhausted, match=too_large):
            client.predict_text("x" * 1000)
        with pytest.raises(ResourceExhausted, match=too_large):
            list(client.predict_stream_text("x" * 1000))
        assert client.predict_text("x" * 400) == "x" * 800


def test_an_answer_that_is_not_json(make_client, echo):
    """With --payload text answers may not be JSON: `predict` raises, and `predict_text` returns them."""
    client = make_client(echo.address)
    for text in ("plain", "[" * 100_000):
        with pytest.raises(ModelError, match="not JSON; predict_text"):
            client.predict(text)
    assert client.predict_text("plain") == "plain"


def test_unparsable_answers_are_internal(make_client, scripted_server):
    """An unparsable answer is INTERNAL, as in gRPC."""
    scripted_server.behaviour = lambda data, context: b"\xff"
    client = make_client(scripted_server.address)
    for method in (client.predict_text, client.health):
        with pytest.raises(ModelError, match="not an answer of /"):
            method("x")


@pytest.mark.parametrize("details", [None, b"\xff", b"", status_pb2.Status(code=code_pb2.INTERNAL).SerializeToString()])
def test_errors_of_other_servers(make_client, scripted_server, details):
    """Errors of a proxy or another server are passed on, with details that are missing, empty or unreadable."""

    def fail(data, context):
        pairs = [("x-request-id", "theirs")] + ([("grpc-status-details-bin", details)] if details is not None else [])
        context.set_trailing_metadata(pairs)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "go away")

    scripted_server.behaviour = fail
    with pytest.raises(PredictError, match="PERMISSION_DENIED: go away") as caught:
        make_client(scripted_server.address).predict_text("x")
    assert (caught.value.reason, caught.value.violations, caught.value.request_id) == ("", (), "theirs")


def test_unknown_health_statuses(make_client, scripted_server):
    """A health status of a later protocol is returned as its number."""
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
def test_invalid_options_are_refused(make_client, scripted_server, options):
    """Invalid options are a ValueError or TypeError before anything is sent; gRPC would fail with INTERNAL, or wait
    until cancelled."""
    with pytest.raises((ValueError, TypeError)):
        make_client(scripted_server.address).predict("x", **options)
    assert scripted_server.calls == []


def test_lone_surrogates(make_client, scripted_server):
    """A text with a lone surrogate is a UnicodeEncodeError; in data it is sent as a JSON escape."""
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
def test_invalid_constructor_arguments(make_client, address, options):
    """An invalid constructor argument is a ValueError at once. gRPC would cut a name at NUL, and read port 65536 as
    port 0."""
    with pytest.raises(ValueError, match=r"^the (address|timeout) is"):
        make_client(address, **options)


@pytest.mark.parametrize(
    "address", ["localhost:1", "[::1]:1", "dns:///a.example:1", "unix:/tmp/x:99999/s", "ipv4:1.2.3.4:1"]
)
def test_targets_of_grpc_are_accepted(make_client, address):
    """Targets of gRPC are accepted in every notation."""
    make_client(address)


def test_errors_can_be_pickled():
    """Errors keep all details in a process pool."""
    error = InvalidInput(grpc.StatusCode.INVALID_ARGUMENT, "m", "r", "i", "c", (FieldViolation("f", "d"),))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), copy.__dict__) == (InvalidInput, str(error), error.__dict__)


@pytest.mark.deep
@pytest.mark.slow
def test_a_client_in_a_child_process(echo):
    """A program may use the client in child processes that it spawns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(call_once, (echo.address,)) == "x"


def call_once(address):
    with Client(address) as client:
        return client.predict_text("x")


def test_details_of_any_length_are_read():
    """errors.status_details never raises, for any bytes."""
    status = status_pb2.Status(message="é" * 50).SerializeToString()
    for end in range(len(status)):
        errors.status_details(status[:end])


def test_a_cancelled_task_stays_cancelled(gated):
    """Cancelling a task that waits for an answer is not a PredictError, even if the client is closed at once."""
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
    """asyncio.timeout ends a call like any other wait, and the client can still be used."""
    server, _ = gated

    async def main():
        async with AsyncClient(server.address) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.predict_text("hold")
            return await client.predict_text("next")

    assert asyncio.run(main()) == "<next>"


def test_an_async_client_belongs_to_one_loop(echo):
    """A client may be made before the loop runs; in a second loop it raises instead of hanging."""
    client = AsyncClient(echo.address)
    assert asyncio.run(client.predict_text("x")) == "x"
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(client.predict_text("x"))
    asyncio.run(client.close())
