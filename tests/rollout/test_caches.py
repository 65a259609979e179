"""Caches of answers and swaps: no answer of one version is given for another."""

from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow


def test_a_cache_ends_with_its_version(track, registry, tmp_path):
    """After a swap, and after the way back to a version that stayed loaded, answers are those of the served version."""
    file = tmp_path / "models.yaml"
    model: dict[str, Any] = {"uri": "models:/churn@champion", "cache": {"rows": 10}}
    file.write_text(yaml.safe_dump({"models": [model]}))
    server = track("--config", str(file))
    for times, version in enumerate(("1", "2", "1")):
        if times:
            registry.move(version)
            server.wait_for_version(version)
        assert [server.answer() for _ in range(3)] == [(f'{{"predictions": [{version}]}}', version)] * 3
    scrape = server.metrics()
    assert scrape.total("mlflow_grpc_cache_requests_total", result="miss") == 2
    assert scrape.total("mlflow_grpc_cache_requests_total", result="hit") == 7
    assert scrape.total("mlflow_grpc_cache_rows") == 1
