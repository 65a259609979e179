"""The command lines in the manifests of deploy/ start servers that answer their probes.

They run as processes of this machine, with other addresses and another directory of the model.
"""

import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mlflow_grpc_client import Client

from tests.process.conftest import payload
from tests.support.manifests import KSERVE, KUBERNETES, document
from tests.support.servers import Forked, free_port, ready_address

pytestmark = pytest.mark.slow

NAME = document(KSERVE / "inferenceservice.yaml")["metadata"]["name"]
HealthStub: Any = health_pb2_grpc.HealthStub
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def replaced(texts: dict[str, str], arguments: list[str]) -> list[str]:
    """Returns arguments with replacements for texts in them; each text occurs once."""
    for old, new in texts.items():
        assert sum(old in argument for argument in arguments) == 1, old
        arguments = [argument.replace(old, new) for argument in arguments]
    return arguments


def check(process: Forked, port: int, http_port: int, container: dict[str, Any], name: str) -> None:
    """Checks that a server answers the probes and a call, has metrics, and ends with SIGTERM."""
    address = ready_address(process)
    assert address == f"127.0.0.1:{port}"
    with grpc.insecure_channel(address) as channel:
        for probe in PROBES:
            service = container[probe]["grpc"].get("service", "")
            answer = HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with Client(address) as client:
        assert client.predict(payload("a"), model=name) == ["a"]
    assert "mlflow_grpc_utilization" in requests.get(f"http://127.0.0.1:{http_port}/metrics", timeout=10).text
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


def test_the_runtime_of_kserve(model):
    """The runtime's container serves the model at /mnt/models under the name of the InferenceService."""
    (container,) = document(KSERVE / "runtime.yaml")["spec"]["containers"]
    port, http_port = free_port(), free_port()
    arguments = replaced(
        {
            "{{.Name}}": NAME,  # KServe's own placeholder.
            "/mnt/models": str(model),
            "0.0.0.0": "127.0.0.1",  # noqa: S104
            f"--port={container['ports'][0]['containerPort']}": f"--port={port}",
            "--http-port=8080": f"--http-port={http_port}",
            "--lame-duck=5": "--lame-duck=0",
        },
        container["args"],
    )
    with Forked(arguments, {"MLFLOW_DISABLE_TELEMETRY": "true"}) as process:
        check(process, port, http_port, container, NAME)


def test_the_deployment(model):
    """The Deployment's container serves the model of its image."""
    (container,) = document(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    port, http_port = free_port(), free_port()
    changes = {
        "MLFLOW_GRPC_HOST": "127.0.0.1",
        "MLFLOW_GRPC_PORT": str(port),
        "MLFLOW_GRPC_HTTP_PORT": str(http_port),
        "MLFLOW_GRPC_LAME_DUCK": "0",
    }
    assert changes.keys() <= variables.keys()
    with Forked(container["args"], {"MODEL_PATH": str(model), **variables, **changes}) as process:
        check(process, port, http_port, container, variables["MLFLOW_GRPC_MODEL_NAME"])


def test_a_wrong_flag_is_noticed(tmp_path: Path):
    """A flag that the server does not have ends the process with exit code 2, so that the tests above would fail."""
    with Forked(["serve", "--model", str(tmp_path)]) as process:
        assert process.wait() == 2
