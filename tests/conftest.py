"""What holds for all tests."""

import pytest

from mlflow_grpc import logs


@pytest.fixture(autouse=True)
def _no_lines_of_other_tests():
    """Log lines of calls are made of notes that wait to be many; those of servers of other tests are not this one's."""
    logs.calls.flush()
