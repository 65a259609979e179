"""deploy/kubernetes/components, deploy/kserve and deploy/ray: resources that other projects define."""

import copy
import re
from typing import Any

import pytest
import yaml

from mlflow_grpc import declarations, settings
from mlflow_grpc.lifecycle import LEAVE_LIMIT_S, NOTICE_S
from mlflow_grpc.services import reflection
from tests.support.manifests import COMPONENTS, KSERVE, KUBERNETES, RAY, document, documents, faults
from tests.support.models import FunctionModel, PlainCodec
from tests.support.scrapes import Scrape
from tests.support.servers import ROOT, serving
from tests.unit.repository.test_manifests import TO_END_S

ROUTE = COMPONENTS / "gateway" / "grpcroute.yaml"
SCALED_OBJECT = COMPONENTS / "keda" / "scaledobject.yaml"
MONITOR = COMPONENTS / "monitoring" / "servicemonitor.yaml"
RUNTIME = KSERVE / "runtime.yaml"
INFERENCE_SERVICE = KSERVE / "inferenceservice.yaml"

RAY_SERVICE = RAY / "rayservice.yaml"

FILES = [
    path
    for path in (*COMPONENTS.glob("*/*.yaml"), *KSERVE.glob("*.yaml"), RAY_SERVICE)
    if path.name != "kustomization.yaml"
]
REMOVE = object()


@pytest.fixture(scope="module")
def server():
    """A server with an HTTP port."""
    with serving(FunctionModel(str), PlainCodec(), http_port=0) as running:
        yield running


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_resources_fit_the_schemas(path):
    """A resource has no unknown fields, no wrong types and all required fields."""
    assert [fault for checked in documents(path) for fault in faults(checked)] == []


@pytest.mark.parametrize(
    ("path", "field", "value", "message"),
    [
        (ROUTE, "spec.rules.0.backendRef", [], "'backendRef' was unexpected"),
        (ROUTE, "spec.rules.0.backendRefs.0.port", "50051", "'50051' is not of type 'number'"),
        (ROUTE, "spec.rules.0.matches.0.method.type", "Prefix", "'Prefix' is not one of ['Exact'"),
        (SCALED_OBJECT, "spec.scaleTargetRef", REMOVE, "'scaleTargetRef' is a required property"),
        (SCALED_OBJECT, "spec.triggers.0.metadata.threshold", 0.6, "0.6 is not of type 'string'"),
        (SCALED_OBJECT, "spec.maxReplicas", 10, "'maxReplicas' was unexpected"),
        (SCALED_OBJECT, "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaledown", {}, "'scaledown' was"),
        (MONITOR, "spec.selector", REMOVE, "'selector' is a required property"),
        (MONITOR, "spec.endpoints.0.intervall", "15s", "'intervall' was unexpected"),
        (RUNTIME, "spec.containers", REMOVE, "'containers' is a required property"),
        (RUNTIME, "spec.containers.0.livenesProbe", {}, "'livenesProbe' was unexpected"),
        (RUNTIME, "spec.containers.0.ports.0.containerPort", "8081", "'8081' is not of type 'integer'"),
        (RUNTIME, "spec.supportedModelFormats.0.version", 1, "1 is not of type 'string'"),
        (INFERENCE_SERVICE, "spec.predictor.model.storageURI", "s3://", "'storageURI' was unexpected"),
        (INFERENCE_SERVICE, "spec.predictor.minReplicas", "2", "'2' is not of type 'integer'"),
        (INFERENCE_SERVICE, "spec.predictor.model.modelFormat", REMOVE, "'modelFormat' is a required property"),
        (RAY_SERVICE, "spec.serveConfig", "", "'serveConfig' was unexpected"),
        (RAY_SERVICE, "spec.rayClusterConfig.headGroupSpec.rayStartParams", REMOVE, "'rayStartParams' is a required"),
        (RAY_SERVICE, "spec.rayClusterConfig.headGroupSpec.rayStartParams.num-cpus", 0, "0 is not of type 'string'"),
        (RAY_SERVICE, "spec.rayClusterConfig.workerGroupSpecs.0.template.spec.image", "", "'image' was unexpected"),
    ],
)
def test_the_schemas_find_faults(path, field, value, message):
    """The check finds a fault in a resource: a misspelt field, a wrong type or value, or a missing field."""
    wrong = copy.deepcopy(documents(path)[0])
    *parents, name = field.split(".")
    parent: Any = wrong
    for step in parents:
        parent = parent[int(step) if isinstance(parent, list) else step]
    if value is REMOVE:
        del parent[name]
    else:
        parent[name] = value
    (fault,) = faults(wrong)
    assert message in fault


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in COMPONENTS.glob("*/kustomization.yaml")), ids=lambda path: path.name
)
def test_a_component_has_all_files_of_its_folder(folder):
    """A component adds all files of its folder."""
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text()).get("resources", [])
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in folder.iterdir())


def test_the_route_has_the_services_of_a_server(server):
    """The route matches all services that a server offers, and leads to the gRPC port of the Service."""
    (rule,) = document(ROUTE)["spec"]["rules"]
    matched = {match["method"]["service"] for match in rule["matches"]}
    typed = {"model_grpc_service.ModelgRPCService"}  # The server's model has no signature.
    assert matched == {*server.server.services, reflection.NAME, reflection.NAME_V1} | typed
    service, _ = documents(KUBERNETES / "service.yaml")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": ports["grpc"]}]


def test_the_monitor_scrapes_a_pod_once(server):
    """The monitor selects both Services, of which one has the port, and its path serves metrics."""
    spec = document(MONITOR)["spec"]
    (endpoint,) = spec["endpoints"]
    services = documents(KUBERNETES / "service.yaml")
    assert all(spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items() for service in services)
    names = [port["name"] for service in services for port in service["spec"]["ports"]]
    assert names.count(endpoint["port"]) == 1
    assert endpoint["path"] == "/metrics"
    assert Scrape(server.url).samples


def test_the_monitor_names_the_job_of_the_alerts():
    """Targets of the monitor have the job that the alerts select; the Prometheus Operator would name the Service."""
    (endpoint,) = document(MONITOR)["spec"]["endpoints"]
    jobs = {rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job"}
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
    assert jobs == set(re.findall(r'job="([^"]+)"', alerts)) != set()


def test_keda_replaces_the_autoscaler(server):
    """KEDA scales the same Deployment within the same bounds, by metrics that a server has, and removes the autoscaler."""
    spec, autoscaler = document(SCALED_OBJECT)["spec"], document(KUBERNETES / "horizontalpodautoscaler.yaml")
    assert spec["scaleTargetRef"] == autoscaler["spec"]["scaleTargetRef"]
    bounds = autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == bounds
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == autoscaler["spec"]["behavior"]
    metrics = {name for name, _ in Scrape(server.url).samples}
    for trigger in spec["triggers"]:
        (metric,) = re.findall(r"sum\((\w+)\{", trigger["metadata"]["query"])
        assert metric in metrics
    (patch,) = yaml.safe_load((SCALED_OBJECT.parent / "kustomization.yaml").read_text())["patches"]
    removed = yaml.safe_load(patch["patch"])
    assert removed.pop("$patch") == "delete"
    assert removed == {
        "apiVersion": autoscaler["apiVersion"],
        "kind": autoscaler["kind"],
        "metadata": {"name": autoscaler["metadata"]["name"]},
    }


def flags() -> dict[str, str]:
    """Returns the flags of the runtime's container."""
    (container,) = document(RUNTIME)["spec"]["containers"]
    command, *arguments = container["args"]
    assert command == "serve"
    return dict(argument.split("=") for argument in arguments)


def test_kserve_finds_one_grpc_port():
    """The container has the name and the one port that KServe expects, which all probes call over gRPC."""
    (container,) = document(RUNTIME)["spec"]["containers"]
    assert container["name"] == "kserve-container"
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("h2c", int(flags()["--port"]))
    probes = [container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [probe["grpc"] for probe in probes] == [{"port": port["containerPort"]}] * 3
    assert document(RUNTIME)["spec"]["annotations"]["prometheus.kserve.io/port"] == flags()["--http-port"]
    assert flags()["--model-uri"] == "/mnt/models"
    known = {name for _, info in settings.fields() for name in declarations.flag(info).names}
    assert flags().keys() <= known


def test_kserve_chooses_the_runtime_for_grpc_v2():
    """KServe compares the format and the protocol, and only chooses among formats with `autoSelect`."""
    spec = document(RUNTIME)["spec"]
    model = document(INFERENCE_SERVICE)["spec"]["predictor"]["model"]
    assert spec["protocolVersions"] == [model["protocolVersion"]] == ["grpc-v2"]
    assert model["modelFormat"]["name"] in {entry["name"] for entry in spec["supportedModelFormats"]}
    assert all(entry["autoSelect"] and entry["priority"] > 0 for entry in spec["supportedModelFormats"])


def test_the_grace_period_of_kserve_is_long_enough():
    """The grace period has room for the lame duck phase, the drain and the end of the process."""
    needed = int(flags()["--lame-duck"]) + int(flags()["--drain-timeout"]) + NOTICE_S + LEAVE_LIMIT_S + TO_END_S
    assert document(INFERENCE_SERVICE)["spec"]["predictor"]["terminationGracePeriodSeconds"] == needed


def test_the_page_about_kserve_has_a_valid_predictor():
    """The block in docs/kserve.md fits the schema in place of the settings that it replaces."""
    (block,) = re.findall(r"^```yaml\n(autoScaling:.*?)^```", (ROOT / "docs" / "kserve.md").read_text(), re.M | re.S)
    changed = document(INFERENCE_SERVICE)
    predictor = changed["spec"]["predictor"]
    del predictor["scaleMetric"], predictor["scaleTarget"]
    predictor |= yaml.safe_load(block)
    assert faults(changed) == []
    predictor["autoScaling"]["metrics"][0]["external"]["metric"]["querry"] = ""
    assert len(faults(changed)) == 1


def test_kuberay_serves_the_application_of_one_model():
    """The configuration in the RayService is that of one-model.yaml, with another host, the model's path and metrics."""
    resource, service = documents(RAY_SERVICE)
    configuration = yaml.safe_load(resource["spec"]["serveConfigV2"])
    expected = document(RAY / "one-model.yaml")
    expected["http_options"]["host"] = "0.0.0.0"  # noqa: S104 - the address in a pod
    expected["applications"][0]["args"] |= {"model_uri": "/models/iris", "metrics": True}
    assert configuration == expected
    ports = {configuration["http_options"]["port"]: "serve", configuration["grpc_options"]["port"]: "grpc"}
    cluster = resource["spec"]["rayClusterConfig"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for template in templates:
        (container,) = template["spec"]["containers"]
        assert ports.items() <= {port["containerPort"]: port["name"] for port in container["ports"]}.items()
        assert {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"} in container["env"]
        labels = {**template["metadata"]["labels"], "ray.io/serve": "true"}
        assert service["spec"]["selector"].items() <= labels.items()
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(9000, "grpc")]


def test_kuberay_has_room_for_the_replicas():
    """The workers have the CPUs that the replicas ask for, and time for their end."""
    spec = documents(RAY_SERVICE)[0]["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    deployment, (group,) = application["args"]["deployment"], spec["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    cpus = group["replicas"] * int(container["resources"]["limits"]["cpu"])
    assert cpus >= deployment["num_replicas"] * deployment["ray_actor_options"]["num_cpus"]
    drain_s = settings.Settings.model_fields["drain_timeout_s"].default
    deregistration_s = 35  # DEREGISTRATION_S of mlflow_grpc.ray.application, which needs Ray.
    assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= deregistration_s + drain_s
    (pinned,) = re.findall(r'^ray = \["ray\[.*\]==(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert spec["rayClusterConfig"]["rayVersion"] == pinned


def test_the_image_runs_the_command():
    """The arguments of the manifests follow the entry point of the image."""
    assert '\nENTRYPOINT ["mlflow-grpc"]\n' in (ROOT / "Dockerfile").read_text()
