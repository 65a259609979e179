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

from mlflow_grpc import root_logger, runner, thread_watch
from mlflow_grpc.choices import OnError
from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.contract import mlflow_schema
from mlflow_grpc.contract.lockfile import io as lock_io
from mlflow_grpc.contract.lockfile.format import LockFile
from mlflow_grpc.contract.messages import FileMaker
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
    """Restores what loading changes in the process.

    Objects of the tests stay subject to collection. What pytest has exempted stays exempt: each full collection of a
    later test would otherwise go through all modules, which takes a second.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gc, "freeze", lambda: None)


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
        self.server = server
        self.loaded.set()

    async def end(self) -> None:
        self.main.signals.put_nowait(signal.SIGTERM)
        assert await self.code == 0


def stepper(name: str = "steps", **more: Any) -> ModelConfig:
    return ModelConfig(class_path=f"{QUICK}.Stepper", name=name, endpoint=True, **more)


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
        await server.end()

    run(test)


def test_a_failed_watcher_ends_the_server(monkeypatch, caplog):
    """An exception in what watches the server is logged with its traceback, and ends the server with exit code 1."""

    def fail() -> None:
        raise LookupError("no root")

    monkeypatch.setattr(thread_watch, "INTERVAL_S", 0.01)

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


def test_a_model_that_its_lock_refuses_is_a_failed_load(tmp_path):
    """A model that is left out because of its lock counts as one failed load, and as no other."""
    contract = mlflow_schema.contract_of(
        {"inputs": '[{"type": "double", "name": "a"}]', "outputs": None, "params": None}
    )
    maker = FileMaker()
    maker.add("steps", contract)
    lock_io.write(tmp_path / "lock", LockFile(models=maker.locks))

    async def test() -> None:
        server = Run(stepper(on_error=OnError.SKIP), stepper("other"), lock=tmp_path / "lock", http_port=0)
        await server.loaded.wait()
        metrics: list[Any] = [entry.engine.metrics for entry in server.server.catalog.entries]
        loads = [{result: count.total() for result, count in model._loads.items()} for model in metrics]
        assert loads == [{"ok": 0, "failed": 1}, {"ok": 1, "failed": 0}]
        await server.end()

    run(test)


def test_models_whose_typed_messages_would_have_one_name(tmp_path):
    """Version 1 of a model and another model called like name and version stop the start: their typed messages and
    locks would have one name."""

    async def test(*models: ModelConfig) -> Run:
        server = Run(*models)
        await asyncio.wait(
            {server.code, asyncio.ensure_future(server.loaded.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        return server

    versions = [stepper("a", version="1"), stepper("a", version="2")]

    async def refused() -> None:
        server = await test(*versions, stepper("a_1", version="7"))
        with pytest.raises(StartError, match="a_1/7 and a/1 would both be called a_1: give one of them another name"):
            await server.code

    async def left_out() -> None:
        server = await test(*versions, stepper("a_1", version="7", on_error=OnError.SKIP))
        assert [entry.label for entry in server.server.catalog.entries if entry.loaded] == ["a/1", "a/2"]
        await server.end()

    run(refused)
    run(left_out)
