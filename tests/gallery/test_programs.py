"""The examples in Go, Java and Node.js, compiled and run with the commands of their pages."""

import contextlib
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import requests

from tests.gallery.conftest import lines
from tests.gallery.example import EXAMPLES, Example
from tests.support.servers import free_port

pytestmark = [pytest.mark.gallery, pytest.mark.timeout(900)]


def needs(*programs: str) -> None:
    """Skips the test if a program is missing."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not on the PATH: {', '.join(missing)}")


def test_go(example, labels):
    """The program in Go prints the model's predictions, and goes on after rows that the server or the model refuses."""
    needs("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    go = example("go", GOFLAGS="")
    go.run(go.command("mlflow-grpc-predict"))
    assert go.run(go.command("./flowers")) == go.outputs[0] == lines(labels)
    with_a_gap = go.command("sed ")
    assert go.run(with_a_gap) == go.outputs[1]
    printed = go.outputs[1].splitlines()
    assert "petal_width_cm" in printed.pop(1)
    assert "\n".join([*printed, ""]) == lines(labels)
    failed = go.run(with_a_gap.replace("1.4,'", "1.4,NaN'")).splitlines()
    assert failed.pop(1).startswith("0 INTERNAL_ERROR ")
    assert failed == printed
    assert "1.4,'" in with_a_gap
    with pytest.raises(AssertionError, match=re.escape(go.outputs[2].strip())):
        go.run(with_a_gap.replace("1.4,'", "1.4,wide'"))


def test_java(example, labels):
    """The program in Java prints the model's predictions, those that its page shows."""
    needs("java", "javac", "protoc", "grpc_java_plugin")
    java = example("java")
    java.run(java.command("mlflow-grpc-predict"))
    assert java.run(java.command("java ")) == java.outputs[0] == lines(labels)
    flowers = java.folder.parent / "flowers.csv"
    assert "\n3,6.1,2.9,4.7,1.4\n" in flowers.read_text()
    flowers.write_text(flowers.read_text().replace("\n3,6.1,2.9,4.7,1.4\n", "\n3,6.1,2.9,4.7,wide\n"))
    with pytest.raises(AssertionError, match=re.escape(java.outputs[1].strip())):
        java.run(java.command("java "))


FLOWER = {"sepal_length_cm": "5.1", "sepal_width_cm": "3.5", "petal_length_cm": "1.4", "petal_width_cm": "0.2"}


@contextlib.contextmanager
def web_service(node: Example) -> Iterator[Callable[..., requests.Response]]:
    """Runs the web service of the example, and yields a function that sends it a request."""
    with node.start(node.command("node ")) as service:
        service.wait_for("ready on")

        def get(path: str = "species", **parameters: str) -> requests.Response:
            return requests.get(f"http://127.0.0.1:{node.variables['PORT']}/{path}", parameters, timeout=30)

        yield get


@pytest.fixture
def node(example):
    """The web service with its packages and the .proto file of the model."""
    needs("node", "npm")
    service = example("node", PORT=str(free_port()))
    service.run(service.command("npm ci"))
    return service


def test_node(node, labels, iris):
    """The web service answers the requests of its page, and names the column at fault."""
    with web_service(node) as get:
        command = node.command("curl").replace(":3000", f":{node.variables['PORT']}")
        assert node.run(command) == node.outputs[0]
        answered, not_a_number, missing = map(json.loads, node.outputs[0].splitlines())
        assert answered == {"species": labels["1"]}
        assert "sepal_length_cm" in not_a_number["error"]
        assert "petal_width_cm" in missing["error"]
        refused = get(sepal_length_cm="5.1")
        assert refused.status_code == 400
        assert all(name in refused.json()["error"] for name in list(FLOWER)[1:])
        assert refused.headers["x-request-id"]
        assert get(**FLOWER).headers["x-request-id"] != refused.headers["x-request-id"]
        for text in ("long", "", " ", "NaN", "Infinity", "5,1"):
            response = get(**{**FLOWER, "petal_length_cm": text})
            assert (response.status_code, "x-request-id" in response.headers) == (400, False), text
            assert response.json() == {"error": "petal_length_cm is not a number; write one such as 5.1"}
        assert get("other", **FLOWER).status_code == 404


@pytest.fixture
def failing() -> Iterator[str]:
    """The address of a server that answers with the status whose number is in the first column."""

    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        number = int(struct.unpack("<d", request[1:9])[0])
        (code,) = [code for code in grpc.StatusCode if code.value[0] == number]
        context.set_trailing_metadata((("x-request-id", f"call-{number}"),))
        context.abort(code, f"failed with {code.name}")

    handlers: dict[str, Any] = {"iris_predict": grpc.unary_unary_rpc_method_handler(fail)}
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_registered_method_handlers("model_grpc_service.ModelgRPCService", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_statuses_of_node(node, failing):
    """Each failure of the model's server has the HTTP status of the page, its text, and the id of the call."""
    node.variables["MODEL_ADDRESS"] = failing
    expected = dict.fromkeys(list(grpc.StatusCode)[1:], 502) | {
        grpc.StatusCode.INVALID_ARGUMENT: 400,
        grpc.StatusCode.NOT_FOUND: 404,
        grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
        grpc.StatusCode.UNAVAILABLE: 503,
        grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    }
    page = (node.folder / "README.md").read_text()
    assert {int(status) for status in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == set(expected.values())
    with web_service(node) as get:
        for code, status in expected.items():
            number = code.value[0]
            response = get(sepal_length_cm=str(number))
            assert (response.status_code, response.json()) == (status, {"error": f"failed with {code.name}"})
            assert response.headers["x-request-id"] == f"call-{number}"


def test_node_without_a_server_a_port_or_a_proto_file(node):
    """Without a server the status is 503; without its port or the .proto file the service says in one line what to do."""
    node.variables["MODEL_ADDRESS"] = f"127.0.0.1:{free_port()}"
    with web_service(node) as get:
        away = get(**FLOWER)
        assert (away.status_code, away.json()) == (503, {"error": "the model does not answer; try again"})
        with node.start(node.command("node ")) as second:
            assert second.wait() == 2
            assert second.stderr == [
                f"Port {node.variables['PORT']} is taken. To use another one: PORT=3001 node server.mjs"
            ]
    (node.folder / "model_service.proto").unlink()
    with node.start(node.command("node ")) as service:
        assert service.wait() == 2
        (line,) = service.stderr
        assert line.endswith(
            f"mlflow-grpc-predict --address {node.variables['MODEL_ADDRESS']} --proto -o model_service.proto"
        )


def test_the_lock_file_of_node_names_no_registry():
    """The lock file works with any mirror."""
    lock = json.loads((EXAMPLES / "node" / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages)
