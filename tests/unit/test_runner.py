"""runner.py: the order of events from start to end, with signals that tests send."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mlflow_grpc import lifecycle, root_logger, runner
from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.errors import StartError
from mlflow_grpc.lifecycle import Server
from mlflow_grpc.settings import Settings
from tests.process.conftest import Held
from tests.process.test_loading import wait_until_serving
from tests.support.servers import Caller, free_port

QUICK = "tests.support.quick_stepper"


class Main:
    """The main thread of a process, whose signals tests send. Functions run in other threads."""

    def __init__(self) -> None:
        self.signals: asyncio.Queue[int] = asyncio.Queue()

    async def next_signal(self) -> int:
        return await self.signals.get()

    async def call(self, function: Callable[[], Any], *, limit_s: float | None = None) -> Any:
        return await asyncio.to_thread(function)


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """Restores what loading changes in the process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    gc.unfreeze()


class Run:
    """A server that runs in the event loop of the test."""

    def __init__(self, *models: ModelConfig, load_first: bool = False, **settings: Any) -> None:
        self.main = Main()
        self.loaded = asyncio.Event()
        loaded = Settings(**{"model_uri": "m", "port": 0, "lame_duck_s": 0.0, **settings})
        configuration = Configuration(models=models)
        role = runner.Role(load_first=load_first)
        main: Any = self.main
        self.code = asyncio.ensure_future(runner._serve(loaded, configuration, main, role, self._when_loaded))

    async def _when_loaded(self, server: Server) -> None:
        self.loaded.set()


def stepper(name: str = "steps") -> ModelConfig:
    return ModelConfig(class_path=f"{QUICK}.Stepper", name=name, endpoint=True)


def gated(gate: Any) -> ModelConfig:
    os.mkfifo(gate)
    return ModelConfig(class_path=f"{QUICK}.Gated", name="gated", endpoint=True, configuration={"gate": str(gate)})


def run(test: Callable[[], Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await test()

    return asyncio.run(limited())


def test_a_signal_ends_the_server():
    """A signal drains the server, and the exit code is 0."""

    async def test() -> None:
        server = Run(stepper())
        await server.loaded.wait()
        server.main.signals.put_nowait(signal.SIGTERM)
        assert await server.code == 0

    run(test)


def test_a_failed_watcher_ends_the_server(monkeypatch, caplog):
    """An exception in what watches the server is logged with its traceback, and ends the server with exit code 1."""

    def fail() -> None:
        raise LookupError("no root")

    monkeypatch.setattr(lifecycle, "HEALTH_INTERVAL_S", 0.01)

    async def test() -> None:
        server = Run(stepper())
        await server.loaded.wait()
        monkeypatch.setattr(root_logger, "restore", fail)
        assert await server.code == 1

    run(test)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    assert isinstance(record.exc_info[1], LookupError)


def test_a_signal_before_a_replacement_listens(tmp_path):
    """A worker that loads before it listens ends with exit code 0, although one of its models is loaded."""
    gate = tmp_path / "gate"

    async def test() -> None:
        server = Run(stepper(), gated(gate), load_first=True, http_port=0)
        pipe = await asyncio.to_thread(os.open, gate, os.O_WRONLY)  # Returns when the second model is being loaded.
        server.main.signals.put_nowait(signal.SIGTERM)
        await asyncio.wait({server.code})
        os.close(pipe)
        assert await server.code == 0

    run(test)


def test_a_signal_ends_the_drain_of_a_failed_start(tmp_path, caplog):
    """A server drains when another of its models stops the start. A signal ends the wait, and the error stays."""
    gate, port = tmp_path / "gate", free_port()
    caplog.set_level(logging.INFO)

    async def test() -> None:
        server = Run(stepper(), gated(gate), port=port, drain_timeout_s=300.0)
        with Caller(f"127.0.0.1:{port}") as call:
            await asyncio.to_thread(wait_until_serving, call, "steps")
            held = await asyncio.to_thread(Held, call, tmp_path, mlflow_model="steps", timeout=100)
            await asyncio.to_thread(gate.write_text, "raise")
            while not any("draining: 1 calls" in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.001)
            assert not server.code.done()
            server.main.signals.put_nowait(signal.SIGTERM)
            with pytest.raises(StartError, match="boom"):
                await server.code
            held.let_go()
            assert (await asyncio.to_thread(held.result))[0] == "UNAVAILABLE"

    run(test)
