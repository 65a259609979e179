"""Fixtures of the tests with Spark."""

from tests.support.bulk_fixtures import config, fleet

__all__ = ["config", "fleet"]
