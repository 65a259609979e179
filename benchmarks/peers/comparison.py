"""The comparison with one model: starts all servers, checks their answers, and measures them in turn."""

import json
import math
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import click
import mlflow
import numpy as np
import pandas as pd

from benchmarks import load
from benchmarks.peers.contenders import Contender
from benchmarks.peers.faces import CALL_ERRORS, Face, PeerError, Running, one_line, why
from benchmarks.workloads import Workload

CHECKED_PAYLOADS, CHECKED_LARGE_PAYLOADS = 64, 3
IDLE_S = 2.0
MIN_CALLS, MAX_SECONDS = 4, 20
"""A measurement is as long as this number of calls in turn, if calls are slow, but no longer than these seconds."""


class Comparison:
    """Servers of one model. What cannot be measured is left out, with its reason."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        """Saves the model and asks it for predictions.

        Args:
            workload: The model and its payloads.
            folder: An empty folder for all files.

        """
        self._workload, self._folder = workload, folder
        self._model = folder / "model"
        workload.save(self._model)
        self._texts = workload.payloads(CHECKED_PAYLOADS if workload.rows == 1 else CHECKED_LARGE_PAYLOADS)
        self._expected = _predictions(self._model, self._texts)
        self._faces: list[Face] = []
        self._running: list[Running] = []
        self._servers: dict[str, dict[str, Any]] = {}
        self._skipped: dict[str, str] = {}
        self._throughput: dict[str, dict[str, list[dict[str, float]]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, contender: Contender, batch_wait_s: float) -> None:
        """Starts a server and checks its answers by all its protocols."""
        folder = self._folder / contender.name.replace(" ", "-")
        folder.mkdir()
        try:
            running = Running(contender, self._model, folder, batch_wait_s)
        except PeerError as error:
            self._skip(contender.name, error)
            return
        self._stack.callback(running.process.end)
        faces = []
        for protocol_name in contender.protocols:
            try:
                face = running.face(protocol_name, self._texts[0])
                face.check(self._texts, self._expected)
            except PeerError as error:
                self._skip(f"{contender.name}, {protocol_name}", error)
            else:
                faces.append(face)
        if not faces:
            running.process.end()
            return
        click.echo(f"{contender.name} answers after {running.start_s:.0f} s")
        self._faces += faces
        self._running.append(running)
        self._servers[contender.name] = {
            "versions": running.versions(),
            "setup": contender.setup(running.location),
            "start_s": running.start_s,
        }

    def measure_idle(self) -> None:
        """Measures memory, and the CPU time that the servers take while nobody calls them."""
        before_s = [running.process.processor_s() for running in self._running]
        time.sleep(IDLE_S)
        for running, spent_s in zip(self._running, before_s, strict=True):
            figures = self._servers[running.contender.name]
            figures["idle"] = (running.process.processor_s() - spent_s) / IDLE_S
            figures["memory_mb"] = running.process.memory_mb()

    def measure(self, seconds: int) -> None:
        """Measures all servers once, with all numbers of calls in flight."""
        for in_flight in self._workload.in_flight:
            for face in self._faces:
                try:
                    measured = self._measured(face, in_flight, seconds)
                except PeerError as error:
                    self._skip(f"{face.name}, {in_flight} in flight", error)
                    continue
                click.echo(
                    f"{self._workload.name}, {in_flight} in flight, {face.name}: {measured.per_second:,.1f}/s, "
                    f"{measured.cpu_us:,.0f} us of CPU, {measured.stolen:.0%} stolen"
                )
                by_face = self._throughput.setdefault(str(in_flight), {})
                by_face.setdefault(face.name, []).append(vars(measured))

    def figures(self) -> dict[str, Any]:
        """Returns all figures for the report."""
        return {
            "name": self._workload.name,
            "rows": self._workload.rows,
            "servers": self._servers,
            "skipped": self._skipped,
            "throughput": self._throughput,
        }

    def _skip(self, name: str, error: PeerError) -> None:
        self._skipped[name] = str(error)
        click.echo(f"{self._workload.name}, {name}, left out: {error}")

    def _measured(self, face: Face, in_flight: int, seconds: int) -> load.Measured:
        """Measures one server; raises PeerError if calls fail."""
        text, answer = self._texts[-1], json.dumps(self._expected[-1])
        try:
            began = time.perf_counter()
            face.ask(text)
            enough = math.ceil(MIN_CALLS * (time.perf_counter() - began))
            longer = max(seconds, min(enough, MAX_SECONDS))
            return load.run(face, text, answer, in_flight=in_flight, seconds=longer, scratch=self._folder)
        except load.LoadError as error:
            counts = [line for line in str(error).splitlines() if line.startswith("requests:")]
            raise PeerError(one_line(counts[0] if counts else str(error).removeprefix(f"{face.name}: "))) from error
        except (*CALL_ERRORS, subprocess.SubprocessError) as error:
            raise PeerError(why(error)) from error


def _predictions(model: Path, texts: list[str]) -> list[list[Any]]:
    """Returns what the loaded model itself predicts for payloads."""
    loaded = mlflow.pyfunc.load_model(str(model))
    tables = [json.loads(text)["dataframe_split"] for text in texts]
    frames = [pd.DataFrame(table["data"], columns=table["columns"]) for table in tables]
    return [np.asarray(loaded.predict(frame)).tolist() for frame in frames]
