"""A model that tests control step by step, and server processes that end with their test."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import stepper
from tests.support.fork_server import fork_server
from tests.support.servers import Caller, ForkedRegistry, Process, ready_address, start_server
from tests.support.shared import made_once


def pytest_collection_finish():
    """Starts the fork server, which imports MLflow while the first tests run."""
    fork_server()


QUICK = "mlmodel:tests.support.quick_stepper.Stepper"
"""The stepper whose server does not import MLflow."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stepper, saved as an MLflow model."""
    return made_once(tmp_path_factory, "stepper", stepper.save)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a registry with two versions of the stepper under the name churn."""

    def make(unfinished: Path) -> None:
        unfinished.mkdir()
        uri, artifacts = f"sqlite:///{unfinished}/registry.db", unfinished.parent / "registry_artifacts"
        with ForkedRegistry([uri, artifacts.as_uri()]) as process:
            assert process.wait() == 0, process.output

    return f"sqlite:///{made_once(tmp_path_factory, 'registry', make)}/registry.db"


@pytest.fixture
def own_registry(registry: str, tmp_path: Path) -> str:
    """The URI of a copy of the registry, which the test may change."""
    shutil.copy(registry.removeprefix("sqlite:///"), tmp_path / "registry.db")
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Returns a function that starts a server with the stepper as an MLModel class, or with the model in the flags."""
    with ExitStack() as stack:

        def launch(*flags: str, env: dict[str, str] | None = None, fresh: bool = False) -> Process:
            model = () if "-m" in flags else ("-m", QUICK)
            return stack.enter_context(start_server(*model, *flags, env=env, fresh=fresh))

        yield launch


@pytest.fixture
def connect() -> Iterator[Callable[[Process], Caller]]:
    """Returns a function that waits until a server is ready and connects to it."""
    with ExitStack() as stack:
        yield lambda process: stack.enter_context(Caller(ready_address(process)))


def payload(*texts: str) -> str:
    return json.dumps({"inputs": list(texts)})


class Held:
    """A call that stays in the model until it is released."""

    def __init__(self, call: Caller, folder: Path, name: str = "call", **more: Any) -> None:
        self.entered, self.leave = folder / f"{name}.entered", folder / f"{name}.leave"
        os.mkfifo(self.entered)
        os.mkfifo(self.leave)
        self.outcome: tuple[str, str | None] = ("", "")
        text = payload("step", str(self.entered), str(self.leave))
        self._thread = threading.Thread(target=lambda: self._run(call, text, more), daemon=True)
        self._thread.start()
        self.entered.read_text()

    def _run(self, call: Caller, text: str, more: dict[str, Any]) -> None:
        self.outcome = call.outcome(text, **more)

    def let_go(self) -> None:
        self.leave.write_text("go")

    def result(self) -> tuple[str, str | None]:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.outcome
