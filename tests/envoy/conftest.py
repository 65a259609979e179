"""Starts the fork server, which imports MLflow while the first tests run."""

from tests.process.conftest import pytest_collection_finish  # noqa: F401 - a hook
