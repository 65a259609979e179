"""What holds for all tests."""

import os
import sys

import pytest

from mlflow_grpc import logs

# Of containers, not of most users: what a process has not written yet when it ends is theirs.
os.environ.pop("PYTHONUNBUFFERED", None)


def pytest_addoption(parser):
    parser.addoption(
        "--client-python", default=sys.executable, help="a Python with the client alone (tests/client/test_alone.py)"
    )


@pytest.fixture(autouse=True)
def _no_lines_of_other_tests():
    """Log lines of calls are made of notes that wait to be many; those of servers of other tests are not this one's."""
    logs.calls.flush()
