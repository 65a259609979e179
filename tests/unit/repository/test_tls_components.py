"""deploy/kubernetes/components/tls and mutual-tls: what they change fits the schemas, the server and each other."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_grpc import settings
from mlflow_grpc.lifecycle import NOTICE_S
from mlflow_grpc.misspellings import flags_by_variable, misspelt
from mlflow_grpc.services.listener import MAX_AGE_SPREAD
from tests.support.manifests import (
    COMPONENTS,
    KUBERNETES,
    SCHEMAS,
    Document,
    document,
    documents,
    faults,
    with_components,
)
from tests.support.servers import ROOT
from tests.unit.repository.test_manifests import TO_END_S

CHOICES = [("tls",), ("tls", "mutual-tls")]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
DEPLOYMENT = document(KUBERNETES / "deployment.yaml")
MONITOR = document(COMPONENTS / "monitoring" / "servicemonitor.yaml")
BASES = [DEPLOYMENT, *documents(KUBERNETES / "service.yaml"), MONITOR]


def page_blocks() -> list[Document]:
    """Returns the resources in the section of docs/kubernetes.md."""
    section = (ROOT / "docs" / "kubernetes.md").read_text().partition("\n## TLS\n")[2].partition("\n## ")[0]
    return [yaml.safe_load(code.partition("```")[0]) for code in section.split("```yaml\n")[1:]]


def container_of(deployment: Document) -> dict[str, Any]:
    """Returns the only container of a deployment."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
@pytest.mark.parametrize("version", SCHEMAS)
def test_patched_resources_fit_the_schemas(names, version):
    """Each resource has no unknown fields and no wrong types after the patches, and one of them changes each resource."""
    for base in BASES:
        patched = with_components(base, *names)
        assert patched != base
        assert faults(patched, version) == []


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_kustomize_builds_the_same(names, tmp_path):
    """Kustomize accepts the components in the order of the page, and builds what the other tests check."""
    shutil.copytree(KUBERNETES, tmp_path / "deploy" / "kubernetes")
    (own,) = [block for block in page_blocks() if block["kind"] == "Kustomization"]
    assert [Path(path).name for path in own["components"]] == ["monitoring", "tls", "mutual-tls"]
    own["components"] = own["components"][: 1 + len(names)]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(yaml.safe_dump(own))
    command = ["kubectl", "kustomize", str(tmp_path / "own")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    built = {(made["kind"], made["metadata"]["name"]): made for made in yaml.safe_load_all(done.stdout)}
    for base in BASES:
        expected = with_components(base, *names)
        assert unordered(built[base["kind"], base["metadata"]["name"]]["spec"]) == unordered(expected["spec"])


def unordered(value: Any) -> Any:
    """Returns a value in which lists of named entries are sorted, without the image, which the kustomization sets."""
    if isinstance(value, dict):
        return {name: unordered(field) for name, field in value.items() if name != "image"}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return sorted((unordered(entry) for entry in value), key=lambda entry: str(entry.get("name", entry)))
    return value


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_the_server_gets_the_files_of_the_secret(names):
    """No variable is misspelt, and each TLS file is in the mounted Secret, which the group of the pod may read."""
    pod = with_components(DEPLOYMENT, *names)["spec"]["template"]["spec"]
    container = container_of(with_components(DEPLOYMENT, *names))
    variables = environment(container)
    assert misspelt(variables, flags_by_variable(settings.fields())) == []
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tls"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    paths = [Path(value) for name, value in variables.items() if name.startswith("MLFLOW_GRPC_TLS_")]
    assert {path.parent for path in paths} == {Path(mount["mountPath"])}
    assert {path.name for path in paths} == {"tls.crt", "tls.key", *(["ca.crt"] if "mutual-tls" in names else [])}
    assert volume["secret"] == {"secretName": "iris-tls", "defaultMode": 0o440}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_the_grace_period_is_long_enough(names):
    """Connections reach their maximum age within the drain timeout, and the grace period has room for that and the drain."""
    deployment = with_components(DEPLOYMENT, *names)
    variables = environment(container_of(deployment))
    lame_duck, age, drain = (
        int(variables[f"MLFLOW_GRPC_{name}"]) for name in ("LAME_DUCK", "MAX_CONNECTION_AGE", "DRAIN_TIMEOUT")
    )
    assert age * MAX_AGE_SPREAD <= drain
    needed = lame_duck + NOTICE_S + age * MAX_AGE_SPREAD + drain + TO_END_S
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == pytest.approx(needed)


def test_the_probes_of_tls_are_those_of_the_kubelet():
    """Without client certificates the kubelet probes over HTTPS, which takes no process."""
    container = container_of(with_components(DEPLOYMENT, "tls"))
    for probe in PROBES:
        assert "grpc" not in container[probe]
        assert (container[probe]["httpGet"]["scheme"], container[probe]["httpGet"]["port"]) == ("HTTPS", "http")


def test_the_probes_of_mutual_tls_are_one_command():
    """With client certificates a command probes, with files and the name that the ServiceMonitor has too."""
    names = CHOICES[1]
    container = container_of(with_components(DEPLOYMENT, *names))
    probes = [container[probe] for probe in PROBES]
    assert all(sorted(probe) == ["exec", "failureThreshold", "periodSeconds", "timeoutSeconds"] for probe in probes)
    (command,) = {tuple(probe["exec"]["command"]) for probe in probes}
    flags = dict(argument.split("=") for argument in command if "=" in argument)
    variables = environment(container)
    assert flags["--address"] == f"localhost:{variables['MLFLOW_GRPC_PORT']}"
    assert (flags["--tls-cert"], flags["--tls-key"], flags["--tls-ca"]) == tuple(
        variables[f"MLFLOW_GRPC_TLS_{name}"] for name in ("CERT", "KEY", "CLIENT_CA")
    )
    (endpoint,) = with_components(MONITOR, *names)["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == flags["--tls-server-name"]
    assert all(int(flags["--timeout"]) < probe["timeoutSeconds"] for probe in probes)


def test_the_page_has_a_certificate_for_the_components():
    """The Certificate in docs/kubernetes.md fills the Secret, and has the name that the probes and Prometheus check."""
    (block,) = [block for block in page_blocks() if block["kind"] == "Certificate"]
    (endpoint,) = with_components(MONITOR, "tls")["spec"]["endpoints"]
    assert block["spec"]["secretName"] == endpoint["tlsConfig"]["ca"]["secret"]["name"]
    assert endpoint["tlsConfig"]["serverName"] in block["spec"]["dnsNames"]
    assert {"server auth", "client auth"} <= {*block["spec"]["usages"]}
