"""deploy/kubernetes: manifests that Kubernetes accepts, and that match this server and each other."""

import copy

import pytest
import yaml

from mlflow_grpc import settings
from mlflow_grpc.lifecycle import LEAVE_LIMIT_S, NOTICE_S
from mlflow_grpc.misspellings import flags_by_variable, misspelt
from tests.support.manifests import KUBERNETES, SCHEMAS, documents, faults

LISTED = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
DOCUMENTS = [listed for name in LISTED for listed in documents(KUBERNETES / name)]
TO_END_S = 5
"""Time that remains for the end of the process, in seconds."""


def only(resource_kind):
    (document,) = [document for document in DOCUMENTS if document["kind"] == resource_kind]
    return document


@pytest.fixture
def pod():
    return only("Deployment")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (single,) = pod["containers"]
    return single


def environment(container):
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}"
)
def test_manifests_fit_the_schemas(document, version):
    """A manifest fits the published schemas of the oldest and the newest version."""
    assert faults(document, version) == []


@pytest.mark.parametrize("version", SCHEMAS)
def test_the_schemas_find_faults(version):
    """The check finds a misspelt field, a wrong type and a missing field, at any depth."""
    wrong = copy.deepcopy(only("Deployment"))
    spec = wrong["spec"]["template"]["spec"]
    spec["containers"][0]["livenesProbe"] = spec["containers"][0].pop("livenessProbe")
    spec["terminationGracePeriodSeconds"] = "44 s"
    del wrong["spec"]["selector"]
    messages = "\n".join(faults(wrong, version))
    for word in ("livenesProbe", "'44 s' is not of type", "'selector' is a required property"):
        assert word in messages


def test_the_kustomization_has_all_files():
    """The kustomization applies all files of the folder."""
    assert sorted(LISTED) == sorted(
        path.name for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml"
    )


def test_the_server_knows_its_settings(container):
    """No environment variable is misspelt, gRPC's port is probed, and both ports are exposed."""
    variables = environment(container)
    assert misspelt(variables, flags_by_variable(settings.fields())) == []
    probed = [container[probe]["grpc"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    exposed = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = [document for document in DOCUMENTS if document["kind"] == "Service"]
    served = {port["name"]: port["port"] for service in services for port in service["spec"]["ports"]}
    grpc_port, http_port = int(variables["MLFLOW_GRPC_PORT"]), int(variables["MLFLOW_GRPC_HTTP_PORT"])
    assert exposed == served == {"grpc": grpc_port, "http": http_port}
    assert {*probed} == {grpc_port} == {settings.Settings.model_fields["port"].default}


def test_the_grace_period_is_long_enough(pod, container):
    """The grace period has room for the lame duck phase, the drain and the end of the process."""
    variables = environment(container)
    needed = (int(variables[name]) for name in ("MLFLOW_GRPC_LAME_DUCK", "MLFLOW_GRPC_DRAIN_TIMEOUT"))
    assert pod["terminationGracePeriodSeconds"] == sum(needed) + NOTICE_S + LEAVE_LIMIT_S + TO_END_S


def test_pods_pass_the_restricted_standard(pod, container):
    """Pods satisfy the profile restricted of the Pod Security Standards, and write to /tmp only."""
    of_pod, of_container = pod["securityContext"], container["securityContext"]
    assert (of_pod["runAsNonRoot"], of_container["runAsNonRoot"]) == (True, True)
    assert of_pod["runAsUser"] > 0
    assert of_pod["seccompProfile"] == of_container["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["capabilities"] == {"drop": ["ALL"]}
    assert of_container["readOnlyRootFilesystem"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]  # noqa: S108
    assert [sorted(volume) for volume in pod["volumes"]] == [["emptyDir", "name"]]
    assert not pod["automountServiceAccountToken"]


def test_manifests_refer_to_the_same_pods(pod):
    """Selectors match the pods, and the autoscaler and kustomization name the same deployment."""
    labels = only("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only("Deployment")["spec"]["selector"]["matchLabels"],
        only("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(document["spec"]["selector"] for document in DOCUMENTS if document["kind"] == "Service"),
    ]
    assert len(selectors) == 5
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert only("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == only("Deployment")["metadata"]["name"]
    assert pod["serviceAccountName"] == only("ServiceAccount")["metadata"]["name"]
    assert [document["spec"].get("clusterIP") for document in DOCUMENTS if document["kind"] == "Service"] == [
        None,
        "None",
    ]
