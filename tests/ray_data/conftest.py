"""Fixtures of the tests with Ray Data."""

from tests.support.bulk_fixtures import config, fleet

__all__ = ["config", "fleet"]
