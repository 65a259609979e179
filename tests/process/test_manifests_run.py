"""The command lines in the manifests of deploy/ start servers that answer their probes.

They run as processes of this machine, with other addresses and another directory of the model.
"""

import contextlib
import http.client
import signal
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import trustme
import urllib3
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mlflow_grpc_client import Client

from tests.process.conftest import payload
from tests.support.commands import predict_command
from tests.support.manifests import COMPONENTS, KSERVE, KUBERNETES, document, with_components
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


def secret(folder: Path, authority: trustme.CA, *names: str) -> Path:
    """Writes the files of a Secret as cert-manager does: a certificate for names, its key and its authority."""
    folder.mkdir()
    issued = authority.issue_cert(*names)
    (folder / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(folder / "tls.key")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    return folder


def status_for_kubelet(port: int, path: str) -> int:
    """Returns the status of a probe over HTTPS; the kubelet accepts any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.mark.parametrize("names", [("tls",), ("tls", "mutual-tls")], ids="+".join)
def test_the_deployment_with_tls(model, tmp_path, names):
    """With the components for TLS the probes succeed, and Prometheus scrapes with the settings of the ServiceMonitor.

    The server also requires tokens, which the probes do not have.
    """
    base = document(KUBERNETES / "deployment.yaml")
    (container,) = with_components(base, *names)["spec"]["template"]["spec"]["containers"]
    monitor = document(COMPONENTS / "monitoring" / "servicemonitor.yaml")
    (endpoint,) = with_components(monitor, *names)["spec"]["endpoints"]
    authority, name = trustme.CA(), endpoint["tlsConfig"]["serverName"]
    files = secret(tmp_path / "tls", authority, name)
    of_prometheus = secret(tmp_path / "prometheus", authority, "prometheus.monitoring")
    (tmp_path / "tokens.txt").write_text(f"someone {'0' * 64}\n")
    port, http_port = free_port(), free_port()
    variables = {variable["name"]: variable["value"].replace("/tls/", f"{files}/") for variable in container["env"]}
    variables |= {
        "MODEL_PATH": str(model),
        "MLFLOW_GRPC_HOST": "127.0.0.1",
        "MLFLOW_GRPC_PORT": str(port),
        "MLFLOW_GRPC_HTTP_PORT": str(http_port),
        "MLFLOW_GRPC_LAME_DUCK": "0",
        "MLFLOW_GRPC_AUTH_TOKENS": str(tmp_path / "tokens.txt"),
    }
    pool: dict[str, Any] = {"ca_certs": str(files / "ca.crt"), "assert_hostname": name, "retries": False}
    with Forked(container["args"], variables) as process:
        ready_address(process)
        if "cert" in endpoint["tlsConfig"]:
            with (
                urllib3.HTTPSConnectionPool("127.0.0.1", http_port, **pool) as refused,
                pytest.raises(urllib3.exceptions.HTTPError),
            ):
                refused.request("GET", endpoint["path"])
            pool |= {"cert_file": str(of_prometheus / "tls.crt"), "key_file": str(of_prometheus / "tls.key")}
        with urllib3.HTTPSConnectionPool("127.0.0.1", http_port, **pool) as scraped:
            assert scraped.request("GET", endpoint["path"]).status == 401
        for probe in PROBES:
            if "httpGet" in container[probe]:
                assert status_for_kubelet(http_port, container[probe]["httpGet"]["path"]) == 200
                continue
            program, *arguments = container[probe]["exec"]["command"]
            assert program == "mlflow-grpc-predict"
            arguments = [argument.replace("/tls/", f"{files}/").replace("50051", str(port)) for argument in arguments]
            assert predict_command(*arguments)[:2] == (0, "SERVING\n")
            without = [argument for argument in arguments if not argument.startswith(("--tls-cert", "--tls-key"))]
            assert predict_command(*without)[0] == 4
            nameless = [argument for argument in arguments if "server-name" not in argument]
            assert predict_command(*nameless)[0] == 4
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_wrong_flag_is_noticed(tmp_path: Path):
    """A flag that the server does not have ends the process with exit code 2, so that the tests above would fail."""
    with Forked(["serve", "--model", str(tmp_path)]) as process:
        assert process.wait() == 2
