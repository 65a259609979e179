"""The example payload in a model's description is valid."""

import json

import pytest

from tests.support import zoo


@pytest.mark.parametrize("name", zoo.NAMES)
def test_examples_are_answered(pair, name):
    """MLflow and this server answer the example; without a signature there is none."""
    oracle, call, model = pair(name)
    example = model.info.example
    assert bool(example) == (model.info.contract.inputs is not None)
    if example:
        status, _ = oracle(example, "application/json")
        assert status == 200, example
        assert json.loads(call(example))
