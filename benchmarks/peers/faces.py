"""Running servers, and the ways to call them: one face for each protocol of a server."""

import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import grpc
import requests

from benchmarks.contenders import ROOT, framed
from benchmarks.peers.contenders import Contender, Location, channel_to
from benchmarks.peers.protocols import Protocol
from benchmarks.processes import ServerProcess

START_LIMIT_S, NEXT_LIMIT_S = 180.0, 20.0
CALL_LIMIT_S = 30.0
CONCURRENT = 32
"""Calls at a time when answers are checked, so that batches form."""
CALL_ERRORS = (grpc.RpcError, requests.RequestException, ValueError, LookupError)
"""Errors of a call, and of an answer that is not in the form of its protocol."""


class PeerError(Exception):
    """A server does not start, or does not answer as the model does. The text is one line for the report."""


class Running:
    """A contender that runs."""

    def __init__(self, contender: Contender, model: Path, folder: Path, batch_wait_s: float) -> None:
        """Starts the server. It may not answer yet.

        Args:
            contender: What to start.
            model: The model to serve.
            folder: An empty folder for the files of the server.
            batch_wait_s: The time that a batch waits for more calls, in seconds; 0 for no batches.

        Raises:
            PeerError: The environment is not there, or the server cannot be set up.

        """
        self.contender = contender
        http_port, grpc_port, third_port = free_ports(3)
        self.location = Location(model, folder, http_port, grpc_port, third_port, batch_wait_s)
        if not Path(contender.python).exists():
            raise PeerError(f"not installed: .venvs/{contender.environment} is not there")
        began = time.perf_counter()
        try:
            contender.prepare(self.location)
        except (OSError, subprocess.SubprocessError) as error:
            raise PeerError(f"cannot be set up: {one_line(str(error))}") from error
        self.process = ServerProcess(
            contender.command(self.location),
            folder.with_suffix(".log"),
            contender.working_folder(self.location),
            contender.process_environment(self.location),
        )
        self._began = began
        self.start_s = 0.0
        """Time from the start to the first answer, in seconds."""

    def face(self, protocol_name: str, text: str) -> "Face":
        """Returns the way to call the server by one protocol, once a payload is answered.

        Raises:
            PeerError: The server ended, or takes longer than `START_LIMIT_S`, or than `NEXT_LIMIT_S` if it has answered
                by another protocol.

        """
        limit_s = NEXT_LIMIT_S if self.start_s else START_LIMIT_S
        began = time.perf_counter() if self.start_s else self._began
        while True:
            try:
                face = Face(self, protocol_name, self.contender.protocols[protocol_name](self.location))
                face.ask(text)
            except CALL_ERRORS as error:
                failure = why(error)
            else:
                self.start_s = self.start_s or time.perf_counter() - self._began
                return face
            if self.process.has_ended:
                raise PeerError(f"ended while it started: {one_line(self.process.last_output(), last=True)}")
            if time.perf_counter() - began > limit_s:
                raise PeerError(f"no answer within {limit_s:.0f} s: {failure}")
            time.sleep(0.1)

    def versions(self) -> str:
        """Returns the versions of the contender's distributions."""
        folder = self.contender.scripts.parent
        sites = [str(path) for path in folder.glob("lib/python*/site-packages")]
        distributions = [
            next(iter(Distribution.discover(name=name, path=sites)), None) for name in self.contender.packages
        ]
        return ", ".join(f"{item.name} {item.version}" for item in distributions if item is not None)


class Face:
    """One protocol of a running server, as the load generator sees it."""

    def __init__(self, running: Running, protocol_name: str, protocol: Protocol) -> None:
        self.name = f"{running.contender.name}, {protocol_name}"
        self.http2 = protocol.is_grpc
        self.protocol_name, self._protocol, self._running = protocol_name, protocol, running
        location = running.location
        self._port = location.grpc_port if protocol.is_grpc else location.http_port
        self._channel = channel_to(self._port) if protocol.is_grpc else None
        self._answer_bytes: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Returns the URL for the load generator."""
        return f"http://127.0.0.1:{self._port}{self._protocol.path}"

    def body(self, text: str) -> bytes:
        """Converts a payload to the body of a request."""
        messages = self._protocol.request(text)
        return b"".join(map(framed, messages)) if self.http2 else messages[0]

    def ask(self, text: str) -> str:
        """Returns the predictions for a payload as JSON, or raises the error of the call."""
        request = self._protocol.request(text)
        if self._channel is not None:
            # A call with one message is the same on the wire, whether it is one of a stream or not.
            stream: Any = self._channel.stream_stream(self._protocol.path)
            chunks = list(stream(iter(request), timeout=CALL_LIMIT_S))
        else:
            headers = {"content-type": "application/json"}
            response = requests.post(self.url, request[0], headers=headers, timeout=CALL_LIMIT_S)
            response.raise_for_status()
            chunks = [response.content]
        answer = json.dumps(self._protocol.predictions(chunks))
        self._answer_bytes[answer] = sum(len(framed(chunk)) for chunk in chunks)
        return answer

    def answer_bytes(self, answer: str) -> int:
        """Returns the size in bytes that an answer of `ask` had on the wire."""
        return self._answer_bytes[answer]

    def processor_s(self) -> float:
        """Returns the CPU time of the server in seconds."""
        return self._running.process.processor_s()

    def check(self, texts: list[str], expected: list[list[Any]]) -> None:
        """Compares answers with the model's own, first one call after the other, then with several at a time.

        Args:
            texts: The payloads.
            expected: The predictions of the model for each of them.

        Raises:
            PeerError: An answer differs, or a call fails.

        """
        for workers, how in ((1, "one call at a time"), (CONCURRENT, f"{CONCURRENT} calls at a time")):
            with ThreadPoolExecutor(workers) as pool:
                try:
                    answers = [json.loads(answer) for answer in pool.map(self.ask, texts)]
                except CALL_ERRORS as error:
                    raise PeerError(f"a call fails, with {how}: {why(error)}") from error
            wrong = sum(answer != predictions for answer, predictions in zip(answers, expected, strict=True))
            if wrong:
                raise PeerError(f"{wrong} of {len(texts)} answers are not the model's, with {how}")


def why(error: Exception) -> str:
    """Returns what an error of a call says, in one line."""
    if isinstance(error, grpc.Call):
        return one_line(f"{error.code().name}: {error.details()}")
    if isinstance(error, requests.HTTPError):
        return one_line(f"HTTP {error.response.status_code}: {error.response.text}")
    return one_line(str(error))


def one_line(text: str, *, last: bool = False) -> str:
    """Returns the first or last line with text, of at most 160 characters, without what a table cannot hold."""
    lines = [line.strip() for line in text.replace(str(ROOT), ".").splitlines() if line.strip()]
    line = lines[-1 if last else 0] if lines else "no output"
    return line.replace("|", "/")[:160]


def free_ports(count: int) -> list[int]:
    """Returns free ports, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
