"""Queries of a registry behind HTTP that answers with JSON, but not with a version."""

import http.server
import json
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest

from mlflow_grpc.hosting.pyfunc.polling import QueryFailed, RegisteredVersion, current_version
from tests.support.http_server import run_in_thread

ALIAS, LATEST = "models:/churn@champion", "models:/churn/latest"


class Answering(http.server.ThreadingHTTPServer):
    """A server that answers every request with the same JSON."""

    answer: Any = None


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Answering)
        body = json.dumps(self.server.answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Writes nothing."""


@pytest.fixture
def registry() -> Iterator[Answering]:
    before = mlflow.get_registry_uri()
    with Answering(("127.0.0.1", 0), Handler) as server:
        run_in_thread(server)
        mlflow.set_registry_uri(f"http://127.0.0.1:{server.server_port}")
        try:
            yield server
        finally:
            mlflow.set_registry_uri(before)
            server.shutdown()


@pytest.mark.parametrize(
    "version", [None, [], "2", {}, {"name": "churn"}, {"version": "2"}, {"name": "churn", "version": ["2"]}]
)
@pytest.mark.parametrize("uri", [ALIAS, LATEST])
def test_an_answer_without_a_version(uri, version, registry):
    """The reason is in words, and not the exception that reading the answer raised."""
    registry.answer = {"model_version": version} if uri == ALIAS else {"model_versions": [version]}
    with pytest.raises(QueryFailed, match="its answer names no version") as failed:
        current_version(uri, 5)
    assert not failed.value.is_gone


def test_a_model_without_versions_is_gone(registry):
    """A registry that answers without a version of the model is not one that is away."""
    registry.answer = {}
    with pytest.raises(QueryFailed, match="no version of the model") as failed:
        current_version(LATEST, 5)
    assert failed.value.is_gone


def test_the_newest_version_is_named(registry):
    """Versions are compared as numbers, and may be numbers in the answer."""
    registry.answer = {"model_versions": [{"name": "churn", "version": version} for version in ("9", 10)]}
    assert current_version(LATEST, 5) == RegisteredVersion("churn", "10")
