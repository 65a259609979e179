"""The configurations in deploy/ray and the blocks of docs/ray.md run as they are written, on the ports of the cluster."""

import contextlib
import io
import json
import re
from typing import Any

import pytest
import yaml
from mlflow_grpc_client import Client

from tests.ray.calls import ROWS
from tests.ray.cluster import Cluster
from tests.ray.conftest import Models
from tests.support import stepper
from tests.support.manifests import RAY, document, documents
from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "ray.md").read_text()


def blocks(language: str) -> list[str]:
    """Returns the blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def deploy(cluster: Cluster, configuration: dict[str, Any], folder: Any) -> None:
    """Deploys a configuration by Ray Serve's command, and waits until its applications run."""
    file = folder / "configuration.yaml"
    file.write_text(yaml.safe_dump(cluster.with_ports(configuration)))
    cluster.run("serve", "deploy", str(file))
    cluster.wait_for(*(application["name"] for application in configuration["applications"]))


def test_one_model(cluster, tmp_path):
    """deploy/ray/one-model.yaml serves models/iris with two replicas, and the client's command of the page calls it."""
    deploy(cluster, document(RAY / "one-model.yaml"), tmp_path)
    assert len(cluster.replicas("iris")) == 2
    (command,) = re.findall(r"^mlflow-grpc-predict .*", PAGE, re.M)
    printed = cluster.run(*command.replace("127.0.0.1:9000", cluster.address).split())
    assert json.loads(printed)["predictions"][0] == "setosa"
    assert "status: RUNNING" in cluster.run("serve", "status")


def test_several_models(cluster, tmp_path):
    """deploy/ray/several-models.yaml serves the models of deploy/ray/models.yaml, with a replica by utilization."""
    deploy(cluster, document(RAY / "several-models.yaml"), tmp_path)
    with Client(cluster.address) as client:
        assert [(model.name, model.version) for model in client.models()] == [("iris", "1"), ("iris", "2")]
        assert client.predict({"dataframe_split": ROWS}, model="iris/2") == ["setosa", "virginica"]
    assert len(cluster.replicas("models")) == 1


def test_the_configuration_of_kuberay(cluster, tmp_path, models):
    """Ray Serve runs the configuration in deploy/ray/rayservice.yaml, with the path of the model changed."""
    resource, _ = documents(RAY / "rayservice.yaml")
    configuration = yaml.safe_load(resource["spec"]["serveConfigV2"])
    configuration["applications"][0]["args"]["model_uri"] = str(models.iris)
    deploy(cluster, configuration, tmp_path)
    with Client(cluster.address) as client:
        assert client.predict({"dataframe_split": ROWS}) == ["setosa", "virginica"]


@pytest.fixture(scope="module")
def two_applications(cluster: Cluster, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster with the two applications of the page, whose second model is the one that tests control."""
    vision = models.folder / "models" / "vision"
    if not vision.exists():
        stepper.save(vision)
    (block,) = blocks("yaml")
    ports = document(RAY / "one-model.yaml")
    deploy(cluster, {**ports, **yaml.safe_load(block)}, tmp_path_factory.mktemp("configuration"))
    return cluster


def test_an_application_for_each_model(two_applications):
    """The applications of the page run, and its Python code calls the one that it names."""
    (code,) = blocks("python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace("127.0.0.1:9000", two_applications.address), {})  # noqa: S102 - the code of the page
    assert "SERVING" in printed.getvalue()
    assert len(two_applications.replicas("iris")) == 2


def test_a_model_gets_its_gpu(two_applications):
    """The replica of the second model has two CPUs and the GPU, and its process sees this GPU only."""
    assert two_applications.resources("vision") == {"CPU": 2, "GPU": 1}
    assert two_applications.resources("iris") == {"CPU": 1}
    with Client(two_applications.address, metadata={"application": "vision"}) as client:
        assert client.predict({"inputs": ["variable", "CUDA_VISIBLE_DEVICES"]}) == "0"
    with Client(two_applications.address, metadata={"application": "iris"}) as client:
        assert client.predict({"dataframe_split": ROWS}) == ["setosa", "virginica"]


def test_a_model_goes_to_the_node_with_its_resource(cluster, models):
    """A model waits until a node has the resource that it asks for, and runs there; another model does not."""

    def application(name: str, **options: Any) -> dict[str, Any]:
        return {
            "name": name,
            "args": {
                "model_uri": str(models.steps),
                "settings": {"model_name": name},
                "deployment": {"ray_actor_options": {"num_cpus": 0.5, **options}},
            },
        }

    cluster.put(application("small"), application("large", resources={"large_memory": 1}))
    cluster.wait_until(lambda: cluster.status("small")[0] == "RUNNING")
    assert cluster.nodes_with("large_memory") == []
    assert cluster.status("large")[0] == "DEPLOYING"
    with cluster.second_node("large_memory"):
        cluster.wait_for("small", "large")
        assert cluster.nodes("large") == cluster.nodes_with("large_memory")
        assert cluster.nodes("small") != cluster.nodes("large")
        with Client(cluster.address, metadata={"application": "large"}) as client:
            assert client.predict({"inputs": ["a"]}) == ["a"]
        cluster.deploy(application("small"))
