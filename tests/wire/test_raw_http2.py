"""Peers that speak HTTP/2 but not quite gRPC: each gets an answer, and the server continues."""

import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support import http2, stepper
from tests.support.depth import examples
from tests.support.http2 import PREDICT, exchange, frame
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, ready_address, serving, start_server

pytestmark = pytest.mark.slow

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = "3", "8", "12", "13"
LIMIT = 32 << 20
MESSAGE = b"\n\x05hello"


@pytest.fixture(scope="module")
def address():
    with serving(FunctionModel(str), PlainCodec()) as server:
        yield server.address
        with Caller(server.address) as call:
            assert call("alive") == "alive"


@pytest.mark.parametrize("path", [PREDICT, "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"])
@pytest.mark.parametrize("body", [None, b"", b"\0\0\0", frame(MESSAGE)[:-2]], ids=["none", "empty", "prefix", "half"])
def test_calls_without_a_complete_message_are_answered(address, path, body):
    """A call without a complete message is INVALID_ARGUMENT; grpc.aio itself would leave its caller waiting until
    cancelled."""
    assert exchange(address, body, path=path)["grpc-status"] == INVALID_ARGUMENT


@pytest.mark.parametrize("body", [frame(MESSAGE), frame(MESSAGE) * 2])
@pytest.mark.parametrize("end", [True, False])
def test_the_first_message_is_the_request(address, body, end):
    """The first message is answered, even if more messages follow or the caller never closes its side."""
    assert exchange(address, body, end=end)["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (frame(MESSAGE, compressed=True), ()),
        (frame(MESSAGE, compressed=True), (("grpc-encoding", b"zstd"),)),
        (frame(b"not gzip", compressed=True), (("grpc-encoding", b"gzip"),)),
        (frame(MESSAGE), (("grpc-timeout", b"xyz"),)),
        (frame(MESSAGE), (("x-bin", b"!!!"),)),
    ],
)
def test_broken_framing(address, body, more):
    """Frames that gRPC's core refuses are INTERNAL, never UNKNOWN."""
    assert exchange(address, body, more=more)["grpc-status"] == INTERNAL


def test_metadata_that_is_not_utf_8(address, caplog):
    """An invalid request id is replaced, and neither its bytes nor a traceback reach the log."""
    answer = exchange(address, frame(MESSAGE), more=(("x-request-id", b"\xff\xfe"),))
    assert answer["grpc-status"] == "0"
    assert re.fullmatch(r"[0-9a-f]{16}", answer["x-request-id"])
    assert "Invalid encoding" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [{":method": "GET"}, {":method": "POST", "content-type": "application/json"}, {":method": "PUT", "te": "trailers"}],
)
def test_requests_that_are_not_grpc(address, headers):
    """Plain HTTP requests end at once."""
    assert exchange(address, frame(MESSAGE), headers=dict(headers))["end"] in ("StreamReset", "StreamEnded", "closed")


def test_many_method_names(address):
    """Unknown methods are UNIMPLEMENTED, however many names a caller invents."""
    with Caller(address) as call:
        for number in range(examples(1000)):
            method: Any = call.channel.unary_unary(f"/x{number}/y")
            assert method.future(b"", timeout=60).exception().code().name == "UNIMPLEMENTED"


def rss_bytes(pid):
    """Returns the current and the maximum resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return [int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024 for key in ("VmRSS", "VmHWM")]  # type: ignore[index]


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """A server process with a message limit of 32 MiB."""
    path = tmp_path_factory.mktemp("stepper") / "model"
    stepper.save(path)
    with start_server("-m", str(path), "--max-message-bytes", str(LIMIT)) as process:
        yield process, ready_address(process)


@pytest.mark.parametrize("encoding", ["gzip", pytest.param("deflate", marks=pytest.mark.deep)])
def test_compression_bombs_cost_no_memory(limited, encoding):
    """A small message that inflates to 256 MiB is refused, and the server's memory grows by less than twice the limit."""
    process, address = limited
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    block = bytes(1 << 20)
    bomb = b"".join(packer.compress(block) for _ in range(256)) + packer.flush()
    with Caller(address) as call:
        call('{"inputs": ["x"]}')
        before, _ = rss_bytes(process.popen.pid)
        body = http2.frame(bomb, compressed=True)
        answer = exchange(address, body, more=(("grpc-encoding", encoding.encode()),))
        assert answer["grpc-status"] == RESOURCE_EXHAUSTED
        assert rss_bytes(process.popen.pid)[1] - before < 2 * LIMIT
        assert call('{"inputs": ["x"]}') == '{"predictions": ["x"]}'
