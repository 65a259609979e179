"""The Ray block of docs/spark-and-ray.md prints the predictions of the example model."""

import ast

import pytest

from tests.support.scripts import block_with, printed_by

pytestmark = [pytest.mark.ray_data, pytest.mark.alone, pytest.mark.timeout(600)]


def test_the_page(iris_path, tmp_path):
    """Both flowers have their species beside their ids."""
    pytest.importorskip("ray.data")
    code = block_with("docs/spark-and-ray.md", "Predictor")
    printed = printed_by(
        code,
        iris_path,
        tmp_path,
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    )
    rows = ast.literal_eval(printed.strip().splitlines()[-1])
    assert sorted((row["id"], row["species"]) for row in rows) == [(1, "setosa"), (2, "virginica")]
