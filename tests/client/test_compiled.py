"""Clients that compile the .proto of `mlflow-grpc proto`, in Python and in Node, against the live server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pytest
from google.protobuf import descriptor_pb2

from mlflow_grpc.contract import messages
from tests.client.test_node import example, tool  # noqa: F401 - a fixture
from tests.support.servers import ROOT
from tests.support.typed import TypedCaller

RECORD = {"sepal_length_cm": 6.7, "sepal_width_cm": 3.0, "petal_length_cm": 5.2, "petal_width_cm": 2.3}

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

NODE = """
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
const [file, address, record] = process.argv.slice(2);
const { model_grpc_service } = grpc.loadPackageDefinition(loader.loadSync(file, { keepCase: true }));
const client = new model_grpc_service.ModelgRPCService(address, grpc.credentials.createInsecure());
const told = (call) => new Promise((done) => call((error, answer) => done(error ? error.message : answer.prediction)));
const flower = JSON.parse(record);
console.log(await told((done) => client.iris_predict(flower, done)));
const rows = Object.fromEntries(Object.entries(flower).map(([name, value]) => [name, [value, value]]));
console.log((await told((done) => client.iris_predict_batch(rows, done))).join(" "));
const stream = client.iris_predict_many();
for (const each of [flower, {}, flower]) stream.write(each);
stream.end();
for await (const answer of stream) console.log(answer.error?.reason ?? answer.prediction);
client.close();
"""


@pytest.fixture(scope="session")
def proto(tmp_path_factory: pytest.TempPathFactory, iris: Any) -> Path:
    """The file that the command writes for the example model."""
    path = tmp_path_factory.mktemp("proto") / messages.FILE
    run_command("-m", str(iris.path), "--model-name", "iris", "-o", str(path))
    return path


def run_command(*arguments: str) -> bytes:
    command = [sys.executable, "-m", "mlflow_grpc", "proto", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_in_python(proto, iris, tmp_path):
    """protoc's own stubs."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--grpc_python_out={tmp_path}", proto.name], check=True)
    (tmp_path / "call.py").write_text(PYTHON)
    command = [sys.executable, str(tmp_path / "call.py"), iris.address, json.dumps(RECORD)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (expected,) = iris.model.predict(pd.DataFrame([RECORD]), None)
    told = done.stdout.split()
    assert told == ["iris_predict", *[expected] * 4, told[5], expected]
    assert told[5] != expected
    assert told[5].isupper()


def test_in_node(proto, iris, example):  # noqa: F811 - a fixture
    """@grpc/proto-loader reads the text."""
    script = example / "typed.mjs"
    script.write_text(NODE)
    command = [tool("node"), str(script), str(proto), iris.address, json.dumps(RECORD)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    (expected,) = iris.model.predict(pd.DataFrame([RECORD]), None)
    told = done.stdout.split()
    assert (told, done.stderr) == ([*[expected] * 4, told[4], expected], "")
    assert told[4] != expected
    assert told[4].isupper()


def test_the_descriptor_set_is_what_the_server_has(iris):
    """The same file as the live one."""
    data = run_command("-m", str(iris.path), "--model-name", "iris", "--descriptor-set")
    files = descriptor_pb2.FileDescriptorSet.FromString(data).file
    live = descriptor_pb2.FileDescriptorProto()
    with grpc.insecure_channel(iris.address) as channel:
        TypedCaller(channel).pool.FindFileByName(messages.FILE).CopyToProto(live)
    assert files[-1] == live
