"""One interface for both clients, servers with normal and abnormal answers, and certificates."""

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import trustme
from mlflow_grpc_client import AsyncClient, Client, _options

from mlflow_grpc.hosting.pyfunc import fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.logs import call_log
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from mlflow_grpc.settings import Settings
from tests.support.servers import InProcess, serving


class BlockingAnswers:
    """Answers of an AsyncClient, read like those of a Client."""

    def __init__(self, run: Callable[[Any], Any], answers: Any) -> None:
        self._run = run
        self._answers = answers

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._run(anext(self._answers))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._run(self._answers.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class BlockingModel:
    """A typed model of an AsyncClient, called like that of a Client."""

    def __init__(self, run: Callable[[Any], Any], model: Any) -> None:
        self._run = run
        self._model = model

    def contract(self) -> Any:
        return self._run(self._model.contract())

    def predict(self, *args: Any, **more: Any) -> Any:
        return self._run(self._model.predict(*args, **more))

    def predict_many(self, *args: Any, **more: Any) -> Any:
        return BlockingAnswers(self._run, self._model.predict_many(*args, **more))

    def predict_stream(self, *args: Any, **more: Any) -> Any:
        return BlockingAnswers(self._run, self._model.predict_stream(*args, **more))


class Blocking:
    """An AsyncClient that is called like a Client, with an event loop in its own thread."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.client = AsyncClient(*args, **more)
        except BaseException:
            self._end()
            raise

    def run(self, coroutine: Any) -> Any:
        async def wait() -> Any:
            return await coroutine

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(60)

    def model(self, *args: Any, **more: Any) -> BlockingModel:
        return BlockingModel(self.run, self.client.model(*args, **more))

    def stream(self, *args: Any, **more: Any) -> BlockingAnswers:
        return BlockingAnswers(self.run, self.client.stream(*args, **more))

    def stream_text(self, *args: Any, **more: Any) -> BlockingAnswers:
        return BlockingAnswers(self.run, self.client.stream_text(*args, **more))

    def predict_stream(self, *args: Any, **more: Any) -> BlockingAnswers:
        return BlockingAnswers(self.run, self.client.predict_stream(*args, **more))

    def predict_stream_text(self, *args: Any, **more: Any) -> BlockingAnswers:
        return BlockingAnswers(self.run, self.client.predict_stream_text(*args, **more))

    def predict(self, *args: Any, **more: Any) -> Any:
        return self.run(self.client.predict(*args, **more))

    def predict_text(self, *args: Any, **more: Any) -> Any:
        return self.run(self.client.predict_text(*args, **more))

    def health(self, *args: Any, **more: Any) -> Any:
        return self.run(self.client.health(*args, **more))

    def close(self) -> None:
        self.run(self.client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._end()

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


# A shell starts background processes with SIGINT ignored, and tests inherit that. It is not undone between fork and
# exec, because gRPC's threads, which start again there, write to the child's stderr when their files are closed.
INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import mlflow_grpc_client.__main__",
]


@pytest.fixture(params=[Client, Blocking], ids=["sync", "asyncio"])
def client_class(request: pytest.FixtureRequest) -> Any:
    """Both classes of clients, one after the other."""
    return request.param


@pytest.fixture
def make_client(client_class: Any) -> Iterator[Callable[..., Any]]:
    """Makes clients of the class; all are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **more: stack.enter_context(client_class(*args, **more))


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait a tenth as long between attempts, for tests that are not about the waiting."""
    monkeypatch.setattr(_options, "RETRY_PAUSES_S", tuple(pause_s / 10 for pause_s in _options.RETRY_PAUSES_S))
    monkeypatch.setattr(_options, "_SERVICE_CONFIG", _options._SERVICE_CONFIG.replace('"0.1s"', '"0.01s"'))


class Attempts(logging.Handler):
    """Log lines of the server's calls as they arrive, one for each attempt of a client."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, Any]] = []
        self.then: Callable[[int], None] = lambda number: None
        """Called in the server's event loop with the number of calls so far."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "call":
            self.fields.append(record.fields)  # type: ignore[attr-defined]
            self.then(len(self.fields))

    @property
    def statuses(self) -> list[str]:
        return [fields["status"] for fields in self.fields]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempts]:
    """The server's log line of each call during the test, written at once."""
    monkeypatch.setattr(call_log, "MAX_NOTES", 1)
    logger, handler = logging.getLogger("mlflow_grpc.call"), Attempts()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)  # Refused calls have their own lines only at this level.
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def loading() -> Iterator[InProcess]:
    """A server without a model."""
    server = InProcess(Settings(model_uri="(in process)", port=0))
    server.start(None, None)
    yield server
    server.stop()


@dataclass
class Iris:
    """The example model: the Python object, and the address where it is served."""

    model: Any
    address: str
    path: Path


@pytest.fixture(scope="session")
def iris(iris_path: Path) -> Iterator[Iris]:
    """The example model, served."""
    model = load_pyfunc(fetching.fetch(str(iris_path)), name="iris")
    with serving(model, ScoringCodec(model.metadata, model.loader_module)) as server:
        yield Iris(model, server.address, iris_path)


@dataclass
class ScriptedServer:
    """A gRPC server that answers any method as the test says."""

    address: str
    behaviour: Callable[[bytes, grpc.ServicerContext], bytes]
    calls: list[grpc.ServicerContext]


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    """A server of grpcio without this project's code, for answers that our server never gives."""

    class Handlers(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(self.answer)

        def answer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
            scripted.calls.append(context)
            return scripted.behaviour(data, context)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handlers()])
    scripted = ScriptedServer(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", lambda data, context: data, [])
    server.start()
    yield scripted
    server.stop(0).wait(10)


@pytest.fixture
def ending_server() -> Iterator[tuple[str, list[grpc.StatusCode]]]:
    """The address of a grpcio server whose streams end after one answer, and a list for the status of their end."""
    status: list[grpc.StatusCode] = []

    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield next(requests)
        if status:
            context.abort(status[0], "the end")

    class Handlers(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            return grpc.stream_stream_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", status
    server.stop(0).wait(10)


@dataclass
class Certificates:
    """PEM files: authorities, and certificates with their keys, in the order (cert, key)."""

    ca: Path
    other_ca: Path
    server: tuple[Path, Path]
    server_elsewhere: tuple[Path, Path]
    client: tuple[Path, Path]
    stranger: tuple[Path, Path]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, a server and a client with its certificates, and a client with a certificate of another authority."""
    folder = tmp_path_factory.mktemp("tls")
    ca, other_ca = trustme.CA(), trustme.CA()

    def authority(name: str, ca: trustme.CA) -> Path:
        ca.cert_pem.write_to_path(folder / name)
        return folder / name

    def pair(name: str, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return cert, key

    return Certificates(
        ca=authority("ca.pem", ca),
        other_ca=authority("other-ca.pem", other_ca),
        server=pair("server", ca.issue_cert("localhost", "127.0.0.1")),
        server_elsewhere=pair("elsewhere", ca.issue_cert("models.example")),
        client=pair("client", ca.issue_cert("client.example")),
        stranger=pair("stranger", other_ca.issue_cert("client.example")),
    )
