"""Several replicas behind HAProxy: balance, a killed replica, a rolling update, autoscaling, several applications."""

import os
import signal

import pytest
from mlflow_grpc_client import Client

from tests.ray.calls import ROWS, held
from tests.ray.conftest import application
from tests.ray.load import CALLERS, Load

LEAST_SHARE = 0.2
"""Share of the calls that a replica of two gets at least."""


def wide(models, **changes):
    """Returns an application whose queue takes all calls of a load."""
    return application(models, **{"queue_calls": 1024, **changes})


def test_two_replicas_share_the_load(cluster, models):
    """Both replicas answer calls."""
    cluster.deploy(wide(models, replicas=2))
    pids = cluster.replicas("models")
    assert len(pids) == 2
    with Load(cluster.address) as load:
        cluster.wait_until(lambda: sum(load.answers.values()) > 1000 and len(load.answers) == 2)
    assert set(load.answers) == set(pids)
    assert min(load.answers.values()) > LEAST_SHARE * sum(load.answers.values())
    assert not load.failures


def test_a_killed_replica_is_replaced(cluster, models):
    """The other replica answers meanwhile; calls that were in the killed one may fail, and no others."""
    cluster.deploy(wide(models, replicas=2))
    killed, survivor = cluster.replicas("models")
    with Load(cluster.address) as load:
        cluster.wait_until(lambda: len(load.answers) == 2)
        os.kill(killed, signal.SIGKILL)
        load.clear()
        cluster.wait_until(lambda: load.answers[survivor] > 100)
        cluster.wait_until(lambda: len(load.answers.keys() - {killed}) == 2)
        (replacement,) = load.answers.keys() - {killed, survivor}
    assert replacement in cluster.replicas("models")
    assert sum(load.failures.values()) <= CALLERS, load.failures


def test_a_rolling_update_loses_no_call(cluster, models):
    """Clients with the retry policy get an answer to each call while all replicas are replaced."""
    cluster.deploy(wide(models, replicas=2))
    before = set(cluster.replicas("models"))
    with Load(cluster.address) as load:
        cluster.wait_until(lambda: before <= set(load.answers))
        cluster.deploy(wide(models, replicas=2, log_level="warning"))
        load.clear()
        after = set(cluster.replicas("models"))
        cluster.wait_until(lambda: after <= set(load.answers))
    assert len(after) == 2
    assert not after & before
    assert not load.failures


def test_autoscaling_by_utilization(cluster, models, tmp_path):
    """A busy replica starts others up to the limit; they end when it is idle."""
    scaled = wide(models)
    scaled["args"]["deployment"] = {
        "ray_actor_options": {"num_cpus": 0.5},
        "autoscaling_config": {
            "min_replicas": 1,
            "max_replicas": 3,
            "upscale_delay_s": 1,
            "downscale_delay_s": 2,
            "look_back_period_s": 2,
            "metrics_interval_s": 0.5,
            # One replica that is busy all the time is worth 1 / 0.3 of them.
            "policy": {"policy_function": "mlflow_grpc.ray:ByUtilization", "policy_kwargs": {"target": 0.3}},
        },
    }
    cluster.deploy(scaled)
    assert len(cluster.replicas("models")) == 1
    with held(cluster.address, tmp_path, timeout_s=60):
        cluster.wait_until(lambda: len(cluster.replicas("models")) == 3, 60)
    cluster.wait_until(lambda: len(cluster.replicas("models")) == 1)


def test_an_application_for_each_model(cluster, models):
    """Two applications on one port have replicas of their own; metadata selects one."""
    apps = [
        {
            "name": name,
            "args": {
                "model_uri": str(uri),
                "settings": {"model_name": name},
                "deployment": {"ray_actor_options": {"num_cpus": 0.25 if name == "iris" else 0.5}},
            },
        }
        for name, uri in (("iris", models.iris), ("steps", models.steps))
    ]
    cluster.deploy(*apps)
    with Client(cluster.address, metadata={"application": "iris"}) as client:
        assert client.predict({"dataframe_split": ROWS}) == ["setosa", "virginica"]
    with Client(cluster.address, metadata={"application": "steps"}) as client:
        answer = client.predict({"inputs": ["pid"]})
        assert [answer] == cluster.replicas("steps")
    assert cluster.resources("iris") == {"CPU": 0.25}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "no model given"),
        ({"model_uri": "/none", "settings": {"port": 1}}, "port has no effect under Ray Serve"),
        ({"model_uri": "/none", "settings": {"queue_call": 1}}, "there is no setting queue_call"),
        ({"model_uri": "/none", "deployment": {"replicas": 1}}, "deployment:"),
        ({"model_uri": "/none", "deployment": {"autoscaling_config": {"min_replicas": 0}}}, "min_replicas has to be"),
        ({"model": "/none"}, "model"),
    ],
)
def test_invalid_arguments_stop_the_deployment(args, message, cluster):
    """The status of the application says what is wrong."""
    cluster.put({"name": "invalid", "args": args})
    cluster.wait_until(lambda: cluster.status("invalid")[0] == "DEPLOY_FAILED")
    assert message in cluster.status("invalid")[1]
