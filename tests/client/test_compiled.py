"""Clients that compile the .proto file of `mlflow-grpc proto`, in Python and Node, with the live server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlflow_grpc.contract import messages
from tests.client.test_node import example  # noqa: F401 - a fixture
from tests.support.fork_server import ForkedProcess
from tests.support.node import tool
from tests.support.servers import ROOT, environment, free_port

pytestmark = pytest.mark.slow

RECORD = {"sepal_length_cm": 6.7, "sepal_width_cm": 3.0, "petal_length_cm": 5.2, "petal_width_cm": 2.3}
SETOSA = {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}

PYTHON = """
import json, sys
import grpc
import model_service_pb2 as pb, model_service_pb2_grpc as stubs
with grpc.insecure_channel(sys.argv[1]) as channel:
    service = stubs.ModelgRPCServiceStub(channel)
    print(service.get_models(pb.empty()).models[0].predict_operation)
    record = pb.iris_input(**json.loads(sys.argv[2]))
    print(service.iris_predict(record).prediction)
    rows = pb.iris_inputs(**{name: [value] * 2 for name, value in json.loads(sys.argv[2]).items()})
    print(*service.iris_predict_batch(rows).prediction)
    for answer in service.iris_predict_many(iter([record, pb.iris_input(), record])):
        print(answer.error.reason or answer.prediction)
"""


@pytest.fixture(scope="session")
def proto(tmp_path_factory: pytest.TempPathFactory, iris: Any) -> Path:
    """The file that the command writes for the example model."""
    path = tmp_path_factory.mktemp("proto") / messages.FILE
    run_command("-m", str(iris.path), "--model-name", "iris", "-o", str(path))
    return path


def run_command(*arguments: str) -> bytes:
    """Returns the output of `mlflow-grpc proto` to stdout."""
    process = ForkedProcess(["proto", *arguments], environment(None), ROOT)
    with process.stdout, process.stderr:
        out, error = process.stdout.read(), process.stderr.read()
    assert process.wait() == 0, error.decode()
    return out


def test_in_python(proto, iris, tmp_path):
    """protoc's own stubs call the server."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--grpc_python_out={tmp_path}", proto.name], check=True)
    (tmp_path / "call.py").write_text(PYTHON)
    command = [sys.executable, str(tmp_path / "call.py"), iris.address, json.dumps(RECORD)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (expected,) = iris.model.predict(pd.DataFrame([RECORD]), None)
    printed = done.stdout.split()
    assert printed == ["iris_predict", *[expected] * 4, printed[5], expected]
    assert printed[5] != expected
    assert printed[5].isupper()


@pytest.mark.deep
def test_in_node(proto, iris, example):  # noqa: F811 - a fixture
    """The example loads the text by @grpc/proto-loader, and prints the error of a record in its turn."""
    command = [tool("node"), str(example / "typed.mjs"), "--address", iris.address, "--proto", str(proto)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    setosa, virginica = iris.model.predict(pd.DataFrame([SETOSA, RECORD]), None)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        setosa,
        f"{setosa} {virginica}",
        setosa,
        "INVALID_PARAMETER_VALUE: sepal_width_cm, petal_length_cm, petal_width_cm",
        virginica,
    ]


def test_in_node_without_a_server(proto, example):  # noqa: F811 - a fixture
    """The typed Node example prints code and message if there is no server."""
    command = [tool("node"), str(example / "typed.mjs"), "--address", f"127.0.0.1:{free_port()}", "--proto", str(proto)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("UNAVAILABLE: ")
