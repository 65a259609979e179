"""Tokens of clients: given, made by a function, in a file, in the environment; and where a client sends none."""

import asyncio
import pickle
import subprocess
import sys
import threading
import time

import grpc
import pytest
from mlflow_grpc_client import (
    TLS,
    AsyncClient,
    Client,
    PermissionDenied,
    PredictError,
    TokenFile,
    Unauthenticated,
    _token,
    _token_function,
)
from mlflow_grpc_client._bulk import BulkOptions
from mlflow_grpc_client.errors import _BY_CODE

from tests.support.access import TOKENS, lines_of
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import serving

WRONG, HIDDEN = "wrong-token", "hidden-token"


@pytest.fixture
def server(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    with serving(FunctionModel(lambda text: text), PlainCodec(), auth_tokens=path) as running:
        yield running


def test_a_token_is_sent_with_each_call(make_client, server):
    """Predictions, streams and health send the token; without it, or with a wrong one, calls raise Unauthenticated."""
    client = make_client(server.address, token=TOKENS["web"])
    assert client.predict_text("x") == "x"
    with client.stream_text(["a", "b"]) as answers:
        assert list(answers) == ["a", "b"]
    assert client.health() == "SERVING"
    for token, error_class in ((None, "NO_CREDENTIALS"), ("", "NO_CREDENTIALS"), ("wrong", "UNKNOWN_TOKEN")):
        with pytest.raises(Unauthenticated) as caught:
            make_client(server.address, token=token).predict_text("x")
        assert caught.value.error_class == error_class
        assert "wrong" not in str(caught.value)


def test_a_function_gives_the_token_of_each_call(make_client, server):
    """A token that expires comes from a function, which is called for each call and stream; its errors are raised."""
    current = ["wrong"]
    client = make_client(server.address, token=lambda: current[-1])
    with pytest.raises(Unauthenticated):
        client.predict_text("x")
    current.append(TOKENS["batch"])
    assert client.predict_text("x") == "x"
    with client.stream_text(["a"]) as answers:
        assert list(answers) == ["a"]
    for wrong, error in ((None, TypeError), ("two words", ValueError), ("", ValueError)):
        current.append(wrong)  # type: ignore[arg-type]
        with pytest.raises(error):
            client.predict_text("x")
        with pytest.raises(error), client.stream_text(["a"]) as answers:
            list(answers)


def test_an_asynchronous_function(server):
    """An AsyncClient awaits the function of its token; a Client says that it cannot."""

    async def token() -> str:
        await asyncio.sleep(0)
        return TOKENS["web"]

    async def call() -> str:
        async with AsyncClient(server.address, token=token) as client:
            return await client.predict_text("x")

    assert asyncio.run(call()) == "x"

    class Awaitable:
        def __await__(self):
            yield

    with Client(server.address, token=Awaitable) as client, pytest.raises(TypeError, match="only an AsyncClient"):
        client.predict_text("x")


def test_metadata_replaces_the_token(make_client, server):
    """A call with its own authorization sends that alone."""
    client = make_client(server.address, token=WRONG)
    assert client.predict_text("x", metadata={"authorization": f"Bearer {TOKENS['web']}"}) == "x"


def test_a_file_is_read_again(make_client, server, tmp_path, monkeypatch):
    """The token of a file is that of its current content."""
    monkeypatch.setattr(_token, "REREAD_S", 0.0)
    path = tmp_path / "token"
    path.write_text("wrong\n")
    client = make_client(server.address, token=TokenFile(path))
    with pytest.raises(Unauthenticated):
        client.predict_text("x")
    path.write_text(f"{TOKENS['web']}\n")
    assert client.predict_text("x") == "x"
    path.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        client.predict_text("x")


def test_the_environment_has_a_token(make_client, server, tmp_path, monkeypatch):
    """MLFLOW_GRPC_TOKEN and MLFLOW_GRPC_TOKEN_FILE are for clients without a token of their own."""
    path = tmp_path / "token"
    path.write_text(TOKENS["web"])
    monkeypatch.setenv("MLFLOW_GRPC_TOKEN_FILE", str(path))
    assert make_client(server.address).predict_text("x") == "x"
    monkeypatch.setenv("MLFLOW_GRPC_TOKEN", "wrong")
    with pytest.raises(Unauthenticated):
        make_client(server.address).predict_text("x")
    assert make_client(server.address, token=TOKENS["web"]).predict_text("x") == "x"


@pytest.mark.parametrize(
    "address",
    [
        "models.example:50051",
        "10.0.0.7:50051",
        "dns:///models.example:50051",
        "localhost:1,10.0.0.7:1",
        "ipv4:10.0.0.7:1",
        "localhost.example.org:1",
        "xds:///models",
    ],
)
def test_no_token_without_encryption(client_class, address, monkeypatch):
    """A client that would send a token to another machine in plain text is not made, unless an option allows it."""
    for token in ("a-token", lambda: "a-token"):
        with pytest.raises(ValueError, match="without encryption"):
            client_class(address, token=token)
    with client_class(address, token=WRONG, token_over_plaintext=True):
        pass
    with client_class(address, token=WRONG, tls=TLS(server_name="models.example")):
        pass
    with client_class(address):
        pass
    monkeypatch.setenv("MLFLOW_GRPC_TOKEN", "a-token")
    with pytest.raises(ValueError, match="without encryption"):
        client_class(address)
    monkeypatch.setenv("MLFLOW_GRPC_TOKEN_OVER_PLAINTEXT", "1")
    with client_class(address):
        pass


@pytest.mark.parametrize(
    "address", ["localhost:1", "127.0.0.2:1", "[::1]:1", "unix:/tmp/x", "dns:///localhost:1", "localhost:1,127.0.0.1:2"]
)
def test_this_machine_may_get_a_token(client_class, address):
    """Loopback addresses and sockets of this machine need no encryption."""
    with client_class(address, token=WRONG):
        pass


@pytest.mark.parametrize(("token", "error"), [("Bearer x", ValueError), ("ü", ValueError), (5, TypeError)])
def test_a_wrong_token(client_class, token, error):
    """A text that cannot be a token is refused at once, and not repeated."""
    with pytest.raises(error) as caught:
        client_class("localhost:1", token=token)
    assert str(token) not in str(caught.value).replace("`Bearer`", "")


def test_no_text_shows_a_token(tmp_path):
    """Neither a client, nor the options of a Spark job, nor a pickled TokenFile has a token to read."""
    path = tmp_path / "token"
    path.write_text(HIDDEN)
    in_file = TokenFile(path)
    assert in_file() == HIDDEN
    with Client("localhost:1", token=HIDDEN) as client:
        assert "hidden" not in repr(client) + client._repr_html_()
    assert "hidden" not in repr(BulkOptions("localhost:1", client_options={"token": HIDDEN})) + repr(in_file)
    assert b"hidden" not in pickle.dumps(in_file)
    assert pickle.loads(pickle.dumps(in_file))() == HIDDEN  # noqa: S301 - its own


def test_the_command(server, tmp_path, monkeypatch):
    """The command takes the token of a file, or of the environment; there is no flag for the token itself."""
    path = tmp_path / "token"
    path.write_text(TOKENS["web"])

    def outcome(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "mlflow_grpc_client", "-a", server.address, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return ended.returncode, ended.stdout, ended.stderr

    assert outcome("x", "--token-file", str(path))[:2] == (0, "x\n")
    code, _, error = outcome("x")
    assert code == 1
    assert "UNAUTHENTICATED" in error
    monkeypatch.setenv("MLFLOW_GRPC_TOKEN", TOKENS["batch"])
    assert outcome("x")[:2] == (0, "x\n")
    code, _, error = outcome("x", "--token-file", str(tmp_path / "missing"))
    assert (code, error) == (2, f"error: cannot read {tmp_path / 'missing'}: No such file or directory\n")
    code, _, error = outcome("x", "-a", "models.example:1")
    assert code == 2
    assert "--token-over-plaintext" in error


def test_statuses_have_classes():
    """UNAUTHENTICATED and PERMISSION_DENIED are classes of PredictError."""
    assert {code.name: error for code, error in _BY_CODE.items() if error in (Unauthenticated, PermissionDenied)} == {
        "UNAUTHENTICATED": Unauthenticated,
        "PERMISSION_DENIED": PermissionDenied,
    }


def test_a_function_that_hangs_holds_up_its_call_only(make_client, server):
    """A function of a token that does not return ends its call at the timeout, and the next token is sent with the next
    call; functions that hang take a limited number of threads.
    """
    may_return = threading.Event()
    hangs = [True]

    def token() -> str:
        if hangs[0]:
            may_return.wait(60)
        return TOKENS["web"]

    client = make_client(server.address, token=token)
    before = threading.active_count()
    try:
        for _ in range(3):
            started_at = time.monotonic()
            with pytest.raises(PredictError, match="function of the token has not returned") as caught:
                client.predict_text("x", timeout_s=0.2)
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "within 0.2 s" in str(caught.value)
            assert time.monotonic() - started_at < 10
        assert threading.active_count() - before >= 3
        hangs[0] = False
        assert client.predict_text("x") == "x"
    finally:
        may_return.set()


def test_no_more_functions_hang_than_may_run(make_client, server, monkeypatch):
    """A call that finds the limit of functions reached waits for one of them, up to its own timeout."""
    monkeypatch.setattr(_token_function, "_running", threading.BoundedSemaphore(1))
    may_return, entered = threading.Event(), threading.Semaphore(0)

    def token() -> str:
        entered.release()
        may_return.wait(60)
        return TOKENS["web"]

    client = make_client(server.address, token=token)
    try:
        for _ in range(2):
            with pytest.raises(PredictError, match="function of the token has not returned"):
                client.predict_text("x", timeout_s=0.2)
        assert entered.acquire(timeout=20)
        assert not entered.acquire(blocking=False)
    finally:
        may_return.set()
    assert client.predict_text("x") == "x"


def test_what_a_function_raises_is_raised(make_client, server):
    """The caller gets the exception of the function itself, also a TimeoutError, and no call is sent."""

    class NoToken(Exception):
        pass

    for error in (NoToken("the vault is sealed"), TimeoutError("the vault is slow")):

        def token(error: Exception = error) -> str:
            raise error

        client = make_client(server.address, token=token)
        with pytest.raises(type(error)) as caught:
            client.predict_text("x")
        assert str(caught.value) == str(error)
        with pytest.raises(type(error)), client.stream_text(["a"]) as answers:
            list(answers)


def test_a_function_does_not_stop_the_event_loop(server):
    """While a blocking function runs, other calls of an AsyncClient go on; one that hangs ends at the timeout, awaited
    or not.
    """
    may_return = threading.Event()

    def blocking() -> str:
        may_return.wait(60)
        return TOKENS["web"]

    async def forever() -> str:
        await asyncio.Event().wait()
        return TOKENS["web"]

    async def run() -> None:
        async with (
            AsyncClient(server.address, token=blocking) as blocked,
            AsyncClient(server.address, token=TOKENS["web"]) as other,
            AsyncClient(server.address, token=forever) as waiting,
            AsyncClient(server.address, token=lambda: forever()) as returned,
        ):
            slow = asyncio.create_task(blocked.predict_text("slow"))
            assert await other.predict_text("x") == "x"
            assert not slow.done()
            may_return.set()
            assert await slow == "slow"
            for client in (waiting, returned):
                with pytest.raises(PredictError, match="function of the token has not returned"):
                    await client.predict_text("x", timeout_s=0.2)
            may_return.clear()
            with pytest.raises(PredictError, match="function of the token has not returned"):
                await blocked.predict_text("x", timeout_s=0.2)
            may_return.set()

    asyncio.run(asyncio.wait_for(run(), 60))
