"""benchmarks/peers: answers are checked before a server is measured, and reports say what was seen, left out and why."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.peers import report
from benchmarks.peers.contenders import CONTENDERS, Location, Mlflow, MLServer
from benchmarks.peers.faces import Face, PeerError, Running, one_line
from benchmarks.peers.features import report as features_report
from benchmarks.peers.features.rows import ROWS
from benchmarks.peers.features.servers import TRIED
from benchmarks.peers.features.stand import Observation
from benchmarks.peers.features.torchserve import TorchServePredictions
from benchmarks.peers.protocols import Rest
from tests.support.http_server import run_in_thread
from tests.support.servers import ROOT

PAYLOADS = [json.dumps({"dataframe_split": {"columns": ["x"], "data": [[number]]}}) for number in range(40)]
EXPECTED = [[2 * number] for number in range(40)]


class Doubling(BaseHTTPRequestHandler):
    """Doubles the number of a payload; the 17th call gets the answer of another one, as in a batch gone wrong."""

    calls = 0
    is_right = True
    lock = threading.Lock()

    def do_POST(self) -> None:
        """Answers a call."""
        kind = type(self)
        with kind.lock:
            kind.calls += 1
            is_wrong = not kind.is_right and kind.calls == 17
        table = json.loads(self.rfile.read(int(self.headers["content-length"])))["dataframe_split"]
        body = json.dumps({"predictions": [2 * table["data"][0][0] + is_wrong]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Writes nothing."""


class Server(ThreadingHTTPServer):
    """An HTTP server that lets more connections wait than are opened at a time."""

    request_queue_size = 128


class Answering:
    """As much of a running server as a face needs."""

    def __init__(self, port: int) -> None:
        self.contender = Mlflow()
        self.location = Location(Path(), Path(), port, 0, 0, 0.0)


@pytest.fixture
def server() -> Iterator[tuple[type[Doubling], Any]]:
    """A server, and what a face calls."""

    class Handler(Doubling):
        pass

    with Server(("127.0.0.1", 0), Handler) as http_server:
        thread = run_in_thread(http_server)
        try:
            yield Handler, Answering(http_server.server_port)
        finally:
            http_server.shutdown()
            thread.join()


def test_right_answers_pass(server):
    """The server gets all payloads twice: one after the other, and several at a time."""
    handler, running = server
    Face(running, "HTTP, JSON", Rest()).check(PAYLOADS, EXPECTED)
    assert handler.calls == 2 * len(PAYLOADS)


def test_one_wrong_answer_is_enough(server):
    """A server whose answer belongs to another call is not measured."""
    handler, running = server
    handler.is_right = False
    with pytest.raises(PeerError, match="1 of 40 answers are not the model's, with one call at a time"):
        Face(running, "HTTP, JSON", Rest()).check(PAYLOADS, EXPECTED)


def test_a_server_that_is_not_installed_is_named(tmp_path, monkeypatch):
    """The reason names the folder that is missing."""
    monkeypatch.setattr("benchmarks.peers.contenders.ENVIRONMENTS", tmp_path)
    with pytest.raises(PeerError, match=r"^not installed: \.venvs/peer-mlserver is not there$"):
        Running(MLServer(), tmp_path, tmp_path / "server", 0.01)


def test_each_environment_has_requirements():
    """`make bench-peers` and `make peer-features` install exactly the environments that the servers use."""
    environments = {server.environment for server in CONTENDERS} | {server.environment for server in TRIED}
    used = {environment.removeprefix("peer-") for environment in environments} - {""}
    assert used == {path.stem for path in ROOT.glob("benchmarks/peers/requirements/*.txt")}


def test_the_report_shows_medians_and_what_was_left_out():
    """A row has the medians of the rounds; a server without figures has its reason."""
    rounds = [
        {"per_second": rate, "p50_ms": 1.0, "p99_ms": 3.0, "cpu_us": 500.0, "stolen": 0.0} for rate in (90, 2000, 1000)
    ]
    server = {"versions": "a 1", "setup": "defaults", "start_s": 2.5, "memory_mb": 200, "idle": 0.01}
    workload = {
        "name": "ten rows",
        "rows": 10,
        "servers": {"A": server},
        "skipped": {"B": "not installed"},
        "throughput": {"1": {"A, HTTP": rounds}},
    }
    head = {"date": "2026-01-31", "machine": "2 cores", "python": "3.11", "h2load": "h2load nghttp2/1.52"}
    figures = {**head, "rounds": 3, "seconds": 2, "stolen": 0.0, "minutes": 1, "workloads": [workload]}
    lines = report.markdown(figures).splitlines()
    assert "| A, HTTP | 1,000 | 10,000 | 1.0 ms | 3.0 ms | 0.50 ms |" in lines
    assert "| A | defaults | a 1 | 2.5 s | 200 MB | 1.0% of a core |" in lines
    assert "| ten rows | B | not installed |" in lines


def test_reasons_fit_into_a_cell():
    """A reason is one line without the marks of a table."""
    assert one_line("\n  a | b\nc\n") == "a / b"
    assert one_line("a\n b\n\n", last=True) == "b"
    assert one_line("") == "no output"
    assert len(one_line("x" * 1000)) == 160


def table_after(path: Path, heading: str) -> list[str]:
    """Returns the lines of the first table after a heading."""
    lines = path.read_text().partition(f"\n{heading}\n")[2].splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    return list(itertools.takewhile(lambda line: line.startswith("|"), lines[first:]))


def test_the_comparison_in_the_readme_is_what_was_tried():
    """The table has the servers, rows and cells of the report, which has all rows that are tried, and no others."""
    in_readme = table_after(ROOT / "README.md", "## How it compares")
    tried = (ROOT / "benchmarks/results/features.md").read_text()
    in_report = [line for line in tried.partition("\n## ")[0].splitlines() if line.startswith("|")]
    assert in_readme == in_report
    assert [line.split("|")[1].strip() for line in in_report[2:]] == list(ROWS)
    assert in_report[0].split(" | ")[1:] == [*(server.name for server in TRIED[:-1]), f"{TRIED[-1].name} |"]


def test_the_readme_has_the_date_and_versions_of_the_trial():
    """The sentence below the table says when it was tried, and with which versions."""
    readme = (ROOT / "README.md").read_text().partition("\n## How it compares\n")[2].partition("\n## ")[0]
    tried = (ROOT / "benchmarks/results/features.md").read_text()
    assert tried.splitlines()[0].rpartition(" ")[2] in readme
    for name in ("mlflow", "mlserver", "kserve", "torchserve"):
        version = re.search(rf"[ ,]{name} ([0-9.]+)", tried)
        assert version is not None
        assert version[1] in readme


def test_the_report_of_features_shows_what_was_seen():
    """A row has the short words in the table and the rest below it; a server that was not tried has its reason."""
    trials = features_report.Trials("2026-01-31", {"A": "a 1", "B": "b 2"}, {"C": "not installed"})
    trials.observed["TLS"] = {"A": Observation("yes", "a | b\nc"), "B": Observation("no", "UNAVAILABLE")}
    lines = features_report.markdown(trials).splitlines()
    assert "| | A | B |" in lines
    assert "| TLS | yes | no |" in lines
    assert "| A | a / b c |" in lines
    assert "- B: b 2" in lines
    assert "- C was not tried: not installed" in lines


def test_the_message_for_torchserve_is_protobuf():
    """Protobuf itself reads the message as the fields of TorchServe's inference.proto."""
    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="torchserve.proto", syntax="proto3")
    request = file.message_type.add(name="PredictionsRequest")
    request.field.add(name="model_name", number=1, type=fields.TYPE_STRING, label=fields.LABEL_OPTIONAL)
    request.field.add(
        name="input",
        number=3,
        type=fields.TYPE_MESSAGE,
        label=fields.LABEL_REPEATED,
        type_name="PredictionsRequest.InputEntry",
    )
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=fields.TYPE_STRING, label=fields.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=fields.TYPE_BYTES, label=fields.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("PredictionsRequest"))
    text = "x" * 300
    message: Any = message_class.FromString(TorchServePredictions().request(text)[0])
    assert message.model_name == "bench"
    assert dict(message.input) == {"body": text.encode()}
