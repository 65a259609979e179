"""The examples in Go, Java and Node.js, compiled and run with the commands of their pages."""

import json
import shutil

import pytest
import requests

from tests.gallery.conftest import lines
from tests.gallery.example import EXAMPLES
from tests.support.servers import free_port

pytestmark = [pytest.mark.gallery, pytest.mark.timeout(900)]


def needs(*programs: str) -> None:
    """Skips the test if a program is missing."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not on the PATH: {', '.join(missing)}")


def test_go(example, labels):
    """The program in Go prints the model's predictions, and goes on after a row for which the model fails."""
    needs("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    go = example("go", GOFLAGS="")
    go.run(go.command("mlflow-grpc-predict"))
    assert go.run(go.command("./flowers")) == go.outputs[0] == lines(labels)
    flowers = go.folder.parent / "flowers.csv"
    header, *rows = flowers.read_text().splitlines()
    flowers.write_text("\n".join([header, "0,NaN,3.5,1.4,0.2", *rows]))
    failed, *others = go.run(go.command("./flowers")).splitlines()
    assert failed.startswith("0 ")
    assert failed.split()[1] != labels["1"]
    assert "\n".join([*others, ""]) == lines(labels)


def test_java(example, labels):
    """The program in Java prints the model's predictions, those that its page shows."""
    needs("java", "javac", "protoc", "grpc_java_plugin")
    java = example("java")
    java.run(java.command("mlflow-grpc-predict"))
    assert java.run(java.command("java ")) == java.outputs[0] == lines(labels)


def test_node(example, labels):
    """The web service answers with the model's prediction, with 400 for a missing column, and 503 without a server."""
    needs("node", "npm")
    port = str(free_port())
    node = example("node", PORT=port)
    node.run(node.command("npm ci"))
    with node.start(node.command("node ")) as service:
        service.wait_for("ready on")
        command = node.command("curl").replace(":3000", f":{port}")
        assert node.run(command) == node.outputs[0]
        assert json.loads(node.outputs[0]) == {"species": labels["1"]}
        refused = requests.get(f"http://127.0.0.1:{port}/species?sepal_length_cm=5.1", timeout=30)
        assert refused.status_code == 400
        assert "petal_width_cm" in refused.json()["error"]
    node.variables["MODEL_ADDRESS"] = f"127.0.0.1:{free_port()}"
    with node.start(node.command("node ")) as service:
        service.wait_for("ready on")
        assert requests.get(f"http://127.0.0.1:{port}/species", timeout=30).status_code == 503


def test_the_lock_file_of_node_names_no_registry():
    """The lock file works with any mirror."""
    lock = json.loads((EXAMPLES / "node" / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages)
