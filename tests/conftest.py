"""What holds for all tests."""

import os
import sys
import time

import pytest

from mlflow_grpc import logs
from tests.support.turns import turn

# Of containers, not of most users: what a process has not written yet when it ends is theirs.
os.environ.pop("PYTHONUNBUFFERED", None)

BEGAN = time.monotonic()


def pytest_addoption(parser):
    parser.addoption(
        "--client-python", default=sys.executable, help="a Python with the client alone (tests/client/test_alone.py)"
    )
    parser.addoption("--fast", action="store_true", help="leave out the tests marked slow")
    parser.addoption(
        "--budget", type=float, metavar="SECONDS", help="how long the run may take; its end says how long it took"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--fast"):
        slow = [item for item in items if item.get_closest_marker("slow") is not None]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item.get_closest_marker("slow") is None]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Gives a test its turn, before the clock of its time limit starts."""
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_terminal_summary(terminalreporter, config):
    """Compares the time that the run took with its budget."""
    budget_s = config.getoption("--budget")
    if budget_s is not None:
        took_s = time.monotonic() - BEGAN
        is_over = took_s > budget_s
        terminalreporter.section("budget", red=is_over)
        line = f"the run took {took_s:.0f} s; its budget is {budget_s:.0f} s on two quiet cores"
        terminalreporter.line(f"OVER BUDGET: {line}" if is_over else line, red=is_over)


@pytest.fixture(autouse=True)
def _no_lines_of_other_tests():
    """Log lines of calls are made of notes that wait to be many; those of servers of other tests are not this one's."""
    logs.calls.flush()
