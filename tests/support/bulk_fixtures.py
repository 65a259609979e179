"""Fixtures of jobs of many rows, which the tests of each engine use."""

import pytest

from tests.support.bulk import Fleet, save_models


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The configuration of the models."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def fleet(config):
    """A server of the models."""
    with Fleet(config, 1) as running:
        yield running
