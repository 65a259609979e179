"""Clients of several servers, and options for all of their calls."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from mlflow_grpc_client import TLS, AsyncClient, Client, DeadlineExceeded, PredictError, Unavailable
from mlflow_grpc_client._connection import channels
from mlflow_grpc_client._connection.channels import Channels, resolve
from mlflow_grpc_client._connection.targets import target_of
from mlflow_grpc_client._options import service_config

from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import InProcess, free_port, serving

pytestmark = pytest.mark.usefixtures("fast_retries")


def answering(number: int) -> Callable[[str], str]:
    return lambda text: str(number)


@contextlib.contextmanager
def servers(count: int, **settings: Any) -> Iterator[list[InProcess]]:
    """Servers that answer with their numbers."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(serving(FunctionModel(answering(number)), PlainCodec(), **settings))
            for number in range(count)
        ]


def ports(running: list[InProcess]) -> list[str]:
    return [server.address.rpartition(":")[2] for server in running]


def answers(client: Any, count: int) -> Counter[str]:
    """Returns the servers that answer, until each has answered or many calls were made."""
    counts: Counter[str] = Counter()
    while len(counts) < count and counts.total() < 500:
        counts[client.predict_text("x")] += 1
    return counts


@pytest.mark.parametrize(
    "form",
    [
        lambda ports: [f"127.0.0.1:{port}" for port in ports],
        lambda ports: ",".join(f"127.0.0.1:{port}" for port in ports),
        lambda ports: "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports),
        lambda ports: [f"localhost:{port}" for port in ports],
        lambda ports: ",".join(f"grpc://localhost:{port}" for port in ports),
        lambda ports: [f"[::ffff:127.0.0.1]:{ports[0]}", *(f"127.0.0.1:{port}" for port in ports[1:])],
    ],
    ids=["list", "text", "ipv4", "names", "URLs", "both versions of IP"],
)
def test_calls_are_balanced(make_client, form):
    """Calls go to all servers in turn, for all forms of addresses; a stream goes to one of them."""
    with servers(3) as running:
        client = make_client(form(ports(running)))
        assert len(answers(client, 3)) == 3
        # All servers are connected now, and each gets every third call.
        assert Counter(client.predict_text("x") for _ in range(30)) == {"0": 10, "1": 10, "2": 10}
        with client.stream_text(["x", "x"]) as stream:
            assert len(set(stream)) == 1


def test_a_server_that_ends_costs_no_call(make_client):
    """The calls of a server that ends go to the other, without an error."""
    with servers(1) as (kept,):
        with servers(1) as (second,):
            client = make_client([kept.address, second.address])
            answers(client, 1)
        assert [client.predict_text("x") for _ in range(20)] == ["0"] * 20


def test_a_name_with_several_addresses():
    """A gRPC target with a name, and host:port with a name, are balanced; an IP address and localhost are not."""
    for address, balances in (
        ("dns:///models.example:1", True), ("models.example:1", True), ("ipv4:10.0.0.1:1,10.0.0.2:1", True),
        ("localhost:1", False), ("127.0.0.1:1", False), ("[::1]:1", False), ("ipv4:10.0.0.1:1", False),
        ("unix:/tmp/x", False), ("xds:///models", False),
    ):  # fmt: skip
        assert target_of(address).balances is balances, address
    config = json.loads(service_config(balances=True))
    assert config.pop("loadBalancingConfig") == [{"round_robin": {}}]
    assert config == json.loads(service_config(balances=False))


def test_tls_to_several(make_client, certificates):
    """Certificates are checked for the common host, or for a given name."""
    cert, key = certificates.server
    with servers(2, tls_cert=cert, tls_key=key) as running:
        tls = TLS(certificates.ca)
        assert len(answers(make_client([f"localhost:{port}" for port in ports(running)], tls=tls), 2)) == 2
        assert (
            len(answers(make_client(",".join(f"grpcs://127.0.0.1:{port}" for port in ports(running)), tls=tls), 2)) == 2
        )
        mixed = [f"{host}:{port}" for host, port in zip(("127.0.0.1", "localhost"), ports(running), strict=True)]
        assert len(answers(make_client(mixed, tls=TLS(certificates.ca, server_name="localhost")), 2)) == 2
        client = make_client(mixed, tls=TLS(certificates.ca, server_name="models.example"), timeout_s=20)
        with pytest.raises(Unavailable, match="is for another name: connect to that name, or give it"):
            client.predict_text("x")


@pytest.mark.slow
def test_tls_true_trusts_the_system(certificates):
    """tls=True and grpcs:// trust the system's authorities, which gRPC takes from the environment."""
    code = """
import sys
import threading
from mlflow_grpc_client import Client
for address, options in ((sys.argv[1], {"tls": True}), ("grpcs://" + sys.argv[1], {})):
    with Client(address, timeout_s=20, **options) as client:
        print(client.predict_text("x"))
"""
    cert, key = certificates.server
    with servers(1, tls_cert=cert, tls_key=key) as (running,):
        command = [sys.executable, "-c", code, running.address]
        for ca, outcome in ((certificates.ca, "0\n0\n"), (certificates.other_ca, "")):
            env = {**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(ca)}
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
            assert done.stdout == outcome, done.stderr
        assert "is not from a trusted authority" in done.stderr


def resolver(monkeypatch: pytest.MonkeyPatch, addresses_by_host: dict[str, list[str]]) -> None:
    """Replaces name resolution by the test's own addresses; other names do not exist."""

    def getaddrinfo(host: str, port: str, **_: object) -> list[Any]:
        if host not in addresses_by_host:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in addresses_by_host[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_names_of_a_list_are_resolved(make_client, monkeypatch):
    """All addresses of all names are used, without names that do not resolve. If none does, the call is UNAVAILABLE
    with the names."""
    resolver(monkeypatch, {"a.example": ["127.0.0.1", "127.0.0.2"], "b.example": ["::1"]})
    assert resolve(target_of("a.example:1,gone.example:2")) == "ipv4:127.0.0.1:1,127.0.0.2:1"
    assert resolve(target_of("a.example:1,b.example:2")) == "ipv6:[::ffff:127.0.0.1]:1,[::ffff:127.0.0.2]:1,[::1]:2"
    sentence = r"None of the hosts of gone.example:1,lost.example:1 can be found: gone.example, lost.example\."
    with pytest.raises(Unavailable, match=sentence):
        make_client("gone.example:1,lost.example:1").predict([1])


def test_names_are_resolved_again(make_client, monkeypatch):
    """A later call resolves the names again without waiting; a stream stays with its server."""
    addresses_by_host = {"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]}
    with servers(2) as running:
        first, second = ports(running)
        real = socket.getaddrinfo
        resolver(monkeypatch, addresses_by_host)
        client = make_client([f"a.example:{first}", f"b.example:{first}"])
        assert client.predict_text("x") == "0"
        with client.stream_text(iter(["x", "x"])) as stream:
            assert next(stream) == "0"
            inner = getattr(client, "client", client)
            held = inner._channels
            # From now on, the names mean the other server.
            monkeypatch.setattr(
                socket, "getaddrinfo",
                lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(second)))],
            )  # fmt: skip
            monkeypatch.setattr(channels, "RESOLVE_INTERVAL_S", 0)
            seen: set[str] = set()
            while "1" not in seen:
                seen.add(client.predict_text("x"))
            assert next(stream) == "0"
        while len(held._call_counts) > 1:  # The old channel is closed after the end of its stream.
            client.predict_text("x")
        monkeypatch.setattr(socket, "getaddrinfo", real)


def test_a_failed_resolution_keeps_the_addresses(monkeypatch):
    """A client keeps the former addresses of a name that it cannot resolve any more."""
    resolver(monkeypatch, {"a.example": ["127.0.0.1"]})
    created: list[str] = []

    def make_channel(name: str) -> object:
        created.append(name)
        return object()

    held = Channels(target_of("a.example:1,a.example:2"), make_channel, lambda _: None)
    first = held.first_resolution()
    assert first is not None
    assert first.result(30) is None
    channel = held.acquire()
    resolver(monkeypatch, {})
    monkeypatch.setattr(channels, "RESOLVE_INTERVAL_S", 0)
    held.acquire()
    while (running := held._resolution) is not None:
        assert "can be found" in str(running.result(30))
    assert held.acquire() is channel
    assert created == ["ipv4:127.0.0.1:1,127.0.0.1:2"]


@pytest.fixture
def slow_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Name resolution that waits: an event for its start, and one that lets it end."""
    started, let_go = threading.Event(), threading.Event()
    real: Callable[..., list[Any]] = socket.getaddrinfo

    def getaddrinfo(host: str, port: str, **options: Any) -> list[Any]:
        if not host.endswith(".example"):
            return real(host, port, **options)
        started.set()
        assert let_go.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield started, let_go
        let_go.set()


def test_a_resolver_has_the_callers_deadline(make_client, slow_resolver):
    """A call and a stream end at their deadline while the names of a list are resolved, and later calls succeed."""
    _, let_go = slow_resolver
    with servers(1) as (running,):
        client = make_client(running.address.replace("127.0.0.1", "a.example") + ",b.example:1")
        with pytest.raises(DeadlineExceeded, match=r"No answer came within 0\.2 s"):
            client.predict_text("x", timeout_s=0.2)
        with pytest.raises(DeadlineExceeded, match=r"No answer came within 0\.2 s"):
            next(client.stream_text(["x"], timeout_s=0.2))
        let_go.set()
        assert client.predict_text("x") == "0"


def test_closing_during_a_resolution(make_client, slow_resolver):
    """A client that is closed while the names of a list are resolved makes no channel."""
    started, let_go = slow_resolver
    client = make_client("a.example:1,b.example:1")
    inner = getattr(client, "client", client)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.predict_text, "x")
        assert started.wait(30)
        client.close()
        let_go.set()
        with pytest.raises(PredictError, match="The client is closed"):
            call.result(30)
    assert inner._channels.detach_all() == []


def test_closing_during_a_call():
    """A call that has begun before the client was closed makes no channel after it."""
    held = Channels(target_of("127.0.0.1:1,localhost:1"), lambda name: name, lambda _: None)
    first = held.first_resolution()
    assert first is not None
    assert first.result(30) is None
    assert held.detach_all() == []
    with pytest.raises(PredictError, match="The client is closed"):
        held.acquire()
    assert held.detach_all() == []


class Counting(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Counts calls by method, and adds metadata."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def _with_more(self, details: Any) -> Any:
        self.methods.append(details.method)
        return details._replace(metadata=(*details.metadata, ("x-request-id", "intercepted")))

    def intercept_unary_unary(self, continuation, client_call_details, request):
        return continuation(self._with_more(client_call_details), request)

    def intercept_unary_stream(self, continuation, client_call_details, request):
        return continuation(self._with_more(client_call_details), request)

    def intercept_stream_stream(self, continuation, client_call_details, request_iterator):
        return continuation(self._with_more(client_call_details), request_iterator)


class CountingUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, methods: list[str]) -> None:
        self.methods = methods

    async def intercept_unary_unary(self, continuation, client_call_details, request):
        self.methods.append(client_call_details.method.decode())
        client_call_details.metadata.add("x-request-id", "intercepted")
        return await continuation(client_call_details, request)


class CountingStreams(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, methods: list[str]) -> None:
        self.methods = methods

    async def intercept_stream_stream(self, continuation, client_call_details, request_iterator):
        self.methods.append(client_call_details.method.decode())
        return await continuation(client_call_details, request_iterator)


def test_interceptors(client_class, make_client, attempts):
    """Interceptors get every call, including streams and health checks, and may change it."""
    with servers(2) as running:
        address = [server.address for server in running]
        if client_class is Client:
            counting = Counting()
            client, methods = make_client(address, interceptors=[counting]), counting.methods
        else:
            methods = []
            client = make_client(address, interceptors=[CountingUnary(methods), CountingStreams(methods)])
        assert client.predict_text("x", request_id=None) in "01"
        assert client.health() == "SERVING"
        with client.stream_text(["x", "x"]) as stream:
            assert len(list(stream)) == 2
        with client.stream_text(["x"], timeout_s=20) as stream:
            assert len(list(stream)) == 1
        assert methods == ["/MLflow/predict", "/grpc.health.v1.Health/Check", *["/MLflowStream/predict_many"] * 2]
        assert attempts.fields[0]["request_id"] == "intercepted"


def test_interceptors_of_the_other_module():
    """Interceptors of the other gRPC module are a TypeError at once; gRPC would refuse them at the first call, or
    never."""
    with pytest.raises(TypeError, match=r"interceptors are a list of those of grpc, such as grpc.UnaryUnaryClientInt"):
        Client("localhost:1", interceptors=[CountingUnary([])])
    for wrong in ([Counting()], [object()], Counting()):
        with pytest.raises(TypeError, match=r"interceptors are a list of those of grpc.aio, such as"):
            AsyncClient("localhost:1", interceptors=wrong)  # type: ignore[arg-type]


def test_metadata_of_all_calls(make_client, scripted_server):
    """Predictions, streams, health, models and typed calls have it; metadata of a single call takes precedence."""
    seen: list[dict[str, Any]] = []

    def behave(data: bytes, context: Any) -> bytes:
        seen.append(dict(context.invocation_metadata()))
        return data

    scripted_server.behaviour = behave
    client = make_client(
        scripted_server.address, metadata={"authorization": "Bearer x", "mlflow-model": "a", "key-bin": b"\xff"}
    )
    client.predict_text("x")
    client.predict_text("x", model="b", metadata={"authorization": "Bearer y"})
    client.predict_text("x", metadata={"mlflow-model": "c"})
    for call in (client.health, lambda: client.model("iris").predict(a=1)):
        with contextlib.suppress(Exception):
            call()
    with contextlib.suppress(Exception):
        next(client.stream_text(["x"]))
    assert [metadata["authorization"][-1] for metadata in seen] == ["x", "y", "x", *["x"] * (len(seen) - 3)]
    assert [metadata["mlflow-model"] for metadata in seen[:3]] == ["a", "b", "c"]
    assert len(seen) >= 5
    assert all(metadata["key-bin"] == b"\xff" for metadata in seen)


@pytest.mark.parametrize(
    ("metadata", "error"), [({"Upper": "x"}, ValueError), ({"a": b"x"}, TypeError), ({"a": "é"}, ValueError), ({1: "x"}, ValueError)]
)  # fmt: skip
def test_invalid_metadata_is_refused(make_client, metadata, error):
    """Invalid metadata is refused when the client is made."""
    with pytest.raises(error, match="metadata"):
        make_client("localhost:1", metadata=metadata)


def test_channel_options(make_client):
    """Channel options override the client's own, and reach gRPC."""
    with serving(FunctionModel(lambda text: text), PlainCodec()) as running:
        small = make_client(running.address, channel_options={"grpc.max_receive_message_length": 10})
        assert small.predict_text("x") == "x"
        with pytest.raises(Exception, match="larger than max"):
            small.predict_text("x" * 100)
        limits: dict[str, Any] = {"max_message_bytes": 100, "channel_options": {"grpc.max_send_message_length": 1000}}
        larger = make_client(running.address, **limits, timeout_s=10)
        assert [len(answer) for answer in larger.stream_text(["x" * 90])] == [90]
        with pytest.raises(ValueError, match="sends up to 1000"):
            next(larger.stream_text(["x" * 1000]))
        with pytest.raises(Exception, match="larger than max"):  # It is sent, and the answer is too large.
            next(larger.stream_text(["x" * 900]))
        agent = make_client(running.address, channel_options=[("grpc.primary_user_agent", "mine/1")])
        assert agent.predict_text("x") == "x"


@pytest.mark.parametrize("options", ["text", 1, [1], {"grpc.x": None}, {"grpc.x": 1.5}, {1: 1}])
def test_invalid_channel_options_are_refused(make_client, options):
    """Invalid options are a TypeError with the expected form."""
    with pytest.raises(TypeError, match=r"channel.option"):
        make_client("localhost:1", channel_options=options)


def test_the_address_of_a_client(make_client):
    """The address is that of the constructor; those of a list are separated by commas."""
    port = free_port()
    for address, shown in (
        (f"localhost:{port}", f"localhost:{port}"),
        (f"grpc://localhost:{port}", f"localhost:{port}"),
        (["10.0.0.1:1", "[::1]:2"], "10.0.0.1:1,[::1]:2"),
        ("dns:///a.example:1", "dns:///a.example:1"),
    ):
        client = make_client(address)
        assert getattr(client, "client", client).address == shown
