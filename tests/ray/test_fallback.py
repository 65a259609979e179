"""Answers through Ray Serve's own proxy and wrapper: what they keep, and what they lose."""

import pytest
from mlflow_grpc_client import Client, ResourceExhausted

from mlflow_grpc import protos
from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.host import Host
from mlflow_grpc.services import reflection
from mlflow_grpc.settings import Settings
from tests.ray.calls import ROWS, full, outcome, text
from tests.ray.conftest import cluster_in
from tests.ray.test_answers import CASES
from tests.ray.test_metrics import REQUESTS


@pytest.fixture(scope="module")
def cluster(models):
    """A cluster whose Python proxy hands calls to the replicas; the application of `address` runs in it."""
    yield from cluster_in(models.folder, through_haproxy=False)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of Ray, as it is imported.
def test_forms_are_those_of_the_protos():
    """The wrapper gets every RPC of every service of a host, with the form that its .proto file declares."""
    from mlflow_grpc.ray.fallback import METHODS

    host = Host(Settings(model_uri="/none"), Configuration(models=(ModelConfig(uri="/none", endpoint=True),)))
    declared = {
        name: {
            method.name: f"{_arity(method.client_streaming)}_{_arity(method.server_streaming)}"
            for method in protos.service(name).methods
        }
        for name in host.services
    }
    assert {**declared, reflection.NAME_V1: {"ServerReflectionInfo": "stream_stream"}} == METHODS


def _arity(streams: bool) -> str:
    return "stream" if streams else "unary"


@pytest.mark.parametrize("case", CASES)
def test_messages_and_statuses_are_those_of_the_server(case, address, reference):
    """Messages and status are those of the project's own server, and so are the details of unary calls."""
    form, path, messages, metadata = CASES[case]
    metadata = {**metadata, "x_request_id": "of-the-test"}
    expected, actual = (outcome(server, form, path, *messages, **metadata) for server in (reference, address))
    if expected[1] == "UNIMPLEMENTED" and form == "unary":  # Answered by the proxy, without details.
        assert actual[1] == expected[1]
    elif form == "unary":
        assert actual == expected
    else:
        assert actual[:3] == expected[:3]


def test_typed_calls(address):
    """Proxies pass typed RPCs of models that they do not know."""
    record = dict(zip(ROWS["columns"], ROWS["data"][0], strict=True))
    with Client(address) as client:
        assert client.model("iris").predict(record) == "setosa"


def test_refused_calls_are_not_repeated(address, tmp_path):
    """The client's retry policy does not act on what the wrapper refuses, although the pause arrives."""
    with full(address, tmp_path) as trailers, Client(address) as client:
        assert "grpc-retry-pushback-ms" in trailers
        with pytest.raises(ResourceExhausted):
            client.predict({"inputs": ["e", "f"]}, model="steps")


def test_the_log_says_what_is_lost(address, cluster):
    """One line of the log says that calls come through the wrapper, and how to change it."""
    lines = [line for line in cluster.logs().splitlines() if "behind Ray Serve's wrapper" in line]
    assert len(lines) == 1
    assert "RAY_SERVE_ENABLE_HA_PROXY=1" in lines[0]


def test_metrics_count_calls_of_the_wrapper(address, cluster):
    """Ray's agent has the metrics of a replica that is called by the wrapper."""
    for _ in range(3):
        outcome(address, "unary", "/MLflow/predict", text({"inputs": ["counted"]}), mlflow_model="steps")
    cluster.wait_until(lambda: cluster.scrape().total(REQUESTS, model="steps") >= 3)
