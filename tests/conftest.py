"""Options and hooks for all tests."""

import functools
import gc
import os
import runpy
import sys
import time
import warnings
from pathlib import Path

import hypothesis
import pytest
import yaml

from mlflow_grpc import logs
from tests.support import depth
from tests.support.shared import made_once
from tests.support.turns import turn

# Containers set it, most users do not. Tests must see the output that a process still has in its buffers at its end.
os.environ.pop("PYTHONUNBUFFERED", None)

# Modules and tests that are being collected are no garbage, and each search for garbage goes through all of them.
gc.disable()

BEGAN = time.monotonic()


def pytest_addoption(parser):
    parser.addoption(
        "--client-python", default=sys.executable, help="a Python with the client alone (tests/client/test_alone.py)"
    )
    parser.addoption("--fast", action="store_true", help="leave out the tests marked slow")
    parser.addoption("--deep", action="store_true", help="run tests marked deep, and all items of exhaustive tests")
    parser.addoption(
        "--budget", type=float, metavar="SECONDS", help="time limit of the run, compared with its duration at the end"
    )


def pytest_configure(config):
    depth.is_deep = config.getoption("--deep")
    # On a busy machine, generated values and the tests with them take any time.
    hypothesis.settings.register_profile(
        "suite",
        max_examples=depth.examples(100),
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("suite")
    _hasten_yaml(config)


def _hasten_yaml(config):
    """Lets MLflow read and write its files by libyaml, which takes a fraction of the time.

    MLflow reads the file of a model several times. This server has a loader of its own for its configuration. Server
    processes keep PyYAML's functions.
    """
    if yaml.__with_libyaml__:
        patch = pytest.MonkeyPatch()
        patch.setattr(yaml, "safe_load", functools.partial(yaml.load, Loader=yaml.CSafeLoader))
        patch.setattr(yaml, "safe_dump", functools.partial(yaml.dump, Dumper=yaml.CSafeDumper))
        config.add_cleanup(patch.undo)


def pytest_collection_modifyitems(config, items):
    left_out = {"slow"} if config.getoption("--fast") else set()
    if not config.getoption("--deep"):
        left_out.add("deep")
    deselected = [item for item in items if left_out & {mark.name for mark in item.iter_markers()}]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        names = set(deselected)
        items[:] = [item for item in items if item not in names]


def pytest_collection_finish():
    """Exempts what is collected from later searches for garbage, which are rare: they took a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
    _keep_exempt()


def _keep_exempt():
    """Lets servers in this process load and replace models without a search through all objects of pytest.

    The search takes up to a second after each start or reload. Server processes keep it (`tests/rollout/test_reloads.py`).
    """
    patch = pytest.MonkeyPatch()
    for module, name, spared in (
        ("mlflow_grpc.rollout.reloads", "_collect_exempt", gc.collect),
        ("mlflow_grpc.model_loading", "_exempt_from_collection", gc.freeze),
    ):
        if module in sys.modules:
            patch.setattr(sys.modules[module], name, spared)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Waits for the turn of a test before its time limit starts to count."""
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_terminal_summary(terminalreporter, config):
    """Compares the duration of the run with its budget."""
    budget_s = config.getoption("--budget")
    if budget_s is not None:
        took_s = time.monotonic() - BEGAN
        is_over = took_s > budget_s
        terminalreporter.section("budget", red=is_over)
        line = f"the run took {took_s:.0f} s; its budget is {budget_s:.0f} s on two quiet cores"
        terminalreporter.line(f"OVER BUDGET: {line}" if is_over else line, red=is_over)


@pytest.fixture(autouse=True)
def _no_lines_of_other_tests():
    """Writes queued log lines, so that calls to servers of other tests do not appear in this one's log."""
    logs.calls.flush()


@pytest.fixture
def collector():
    """A receiver of OpenTelemetry's traces."""
    from tests.support.collector import Collector  # Late, because few tests need it.

    with Collector() as running:
        yield running


@pytest.fixture(scope="session")
def iris_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the example model, trained by models/train_iris.py."""

    def train(unfinished: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Warnings of scikit-learn and MLflow about each other.
            runpy.run_path(str(Path(__file__).parents[1] / "models" / "train_iris.py"))["main"](unfinished)

    return made_once(tmp_path_factory, "iris", train)
