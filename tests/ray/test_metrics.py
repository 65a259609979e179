"""Metrics of replicas that Ray's agent offers to Prometheus."""

import shutil
from typing import Any

import pytest
import yaml
from mlflow_grpc_client import Client, InvalidInput

from tests.prometheus.prometheus import Prometheus
from tests.ray.conftest import LIMITS, application
from tests.support.scrapes import Scrape
from tests.support.servers import ROOT, ready_address, start_server

REQUESTS = "ray_mlflow_grpc_requests_total"

CALLS = 40

OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "deployment", "replica", "application"}
"""Labels that Ray adds, beside those of OpenTelemetry."""


def call(address: str, **metadata: str) -> None:
    """Makes calls that the models answer, and one that they refuse."""
    with Client(address, metadata=metadata) as client:
        for number in range(CALLS):
            assert client.predict({"inputs": [f"call {number}"]}, model="steps") == [f"call {number}"]
        with pytest.raises(InvalidInput, match="JSON"):
            client.predict_text("{", model="iris")


def names_and_labels(scrape: Scrape, prefix: str = "") -> set[tuple[str, frozenset[str]]]:
    """Returns the names of all series of this project, with the names of their labels.

    Ray counts calls between its processes under names that begin with `grpc_server` too, but not by replica.
    """
    names = {(name, frozenset(dict(labels))) for name, labels in scrape.samples}
    return {
        (name.removeprefix(prefix), frozenset(key for key in keys if not key.startswith("otel_")) - OF_RAY)
        for name, keys in names
        if name.startswith((f"{prefix}mlflow_grpc", f"{prefix}grpc_server")) and (not prefix or "replica" in keys)
    }


@pytest.fixture(scope="module")
def counted(cluster, models) -> dict[str, Any]:
    """Two applications that were called: one with metrics and two replicas, and one without metrics."""
    with_metrics, without = application(models, replicas=2, metrics=True), application(models)
    without["name"] = "silent"
    cluster.deploy(with_metrics, without)
    for name in ("models", "silent"):
        call(cluster.address, application=name)
    cluster.wait_until(lambda: cluster.scrape().total(REQUESTS, model="steps", application="models") >= CALLS)
    return with_metrics


def test_the_metrics_are_those_of_the_server(counted, cluster, models):
    """Names and labels of all series are those of the server's own /metrics after the same calls."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in LIMITS.items()]
    with start_server("--config", str(models.file), "--http-port", "0", *flags, fresh=True) as process:
        call(ready_address(process))
        own = Scrape(process.wait_for(r"HTTP on (http://\S+:\d+)")[1])
    assert own.total("mlflow_grpc_requests_total", model="steps") == CALLS
    expected = names_and_labels(own)
    assert len(expected) > 30
    cluster.wait_until(lambda: names_and_labels(cluster.scrape(), "ray_") == expected, 60)


def test_replicas_are_counted_apart(counted, cluster):
    """Each replica has series of its own, whose sum is the number of calls, and health and buckets have their values."""
    scrape = cluster.scrape()
    replicas = {labels["replica"] for labels in scrape.labels("ray_mlflow_grpc_serving")}
    assert len(replicas) == 2
    assert scrape.total("ray_mlflow_grpc_serving") == 2
    assert scrape.total(REQUESTS, model="steps", grpc_code="OK") == CALLS
    assert scrape.total(REQUESTS, model="iris", grpc_code="InvalidArgument") == 1
    assert scrape.total("ray_mlflow_grpc_predicting_seconds_bucket", model="steps", le="+Inf") == CALLS


def test_nothing_is_exported_unless_it_is_asked_for(counted, cluster):
    """An application without `metrics` has no series, although it was called."""
    labels = cluster.scrape().labels(REQUESTS)
    assert {having["application"] for having in labels} == {"models"}


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus")
def test_prometheus_has_the_names_of_a_single_server(counted, cluster, tmp_path):
    """With deploy/ray/prometheus.yaml, the rules and the dashboard find the metrics of the replicas."""
    (job,) = yaml.safe_load((ROOT / "deploy" / "ray" / "prometheus.yaml").read_text())["scrape_configs"]
    job["file_sd_configs"] = [{"files": [str(cluster.nodes_file)]}]
    with Prometheus(tmp_path, scrape_configs=[job]) as prometheus:
        prometheus.wait_for(f'sum(mlflow_grpc_requests_total{{model="steps"}}) == {CALLS}')
        assert len(prometheus.query('mlflow_grpc_serving{job="mlflow-grpc"} == 1')) == 2
        quantile = "histogram_quantile(0.5, sum by (le) (mlflow_grpc_predicting_seconds_bucket)) > 0"
        assert len(prometheus.query(quantile)) == 1
        with Client(cluster.address, metadata={"application": "models"}) as client:
            client.predict({"inputs": ["later"]}, model="steps")
        prometheus.wait_for('sum(rate(mlflow_grpc_requests_total{model="steps"}[1m])) > 0')
        prometheus.wait_for('model:mlflow_grpc_requests_waiting:sum{job="mlflow-grpc", model="steps"} == 0')
        assert prometheus.query('{__name__=~"ray_mlflow_grpc_.*"}') == []


def test_a_replica_that_has_ended_is_forgotten(counted, cluster):
    """The series of a replica disappear after its end."""
    counted["args"]["deployment"]["num_replicas"] = 1
    cluster.deploy(counted)
    cluster.wait_until(lambda: len(cluster.scrape().labels("ray_mlflow_grpc_serving")) == 1)
