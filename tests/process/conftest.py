"""A model to step through, and server processes that are gone when a test ends."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import stepper
from tests.support.servers import Caller, Process, ready_address, start_server


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stepper, saved."""
    path = tmp_path_factory.mktemp("stepper") / "model"
    stepper.save(path)
    return path


@pytest.fixture
def start(model: Path) -> Iterator[Callable[..., Process]]:
    """Starts a server with the stepper, or with the model that the flags name."""
    with ExitStack() as stack:

        def launch(*flags: str, env: dict[str, str] | None = None) -> Process:
            given = flags if "-m" in flags else ("-m", str(model), *flags)
            return stack.enter_context(start_server(*given, env=env))

        yield launch


@pytest.fixture
def connect() -> Iterator[Callable[[Process], Caller]]:
    """Waits until a server is ready and connects to it."""
    with ExitStack() as stack:
        yield lambda process: stack.enter_context(Caller(ready_address(process)))


def payload(*words: str) -> str:
    return json.dumps({"inputs": list(words)})


class Held:
    """A call that is in the model, until it is let go."""

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
