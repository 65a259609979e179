"""Hosted models with generated protobuf code that has the server's file, package and message names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from tests.support.typed import TypedCaller

THEIRS = {
    "mlflow.proto": 'syntax = "proto3"; message Input { int32 other = 1; } message Output { int32 other = 1; }',
    "model_service.proto": """
        syntax = "proto3"; package model_grpc_service;
        message empty { int32 other = 1; }
        message model { int32 other = 7; }
        message iris_input { string other = 1; }
        message iris_output { string other = 1; }
        service ModelgRPCService { rpc get_models(empty) returns (model); }
    """,
    "models.proto": """
        syntax = "proto3"; package mlflow_grpc.v1;
        message Model { bytes name = 9; }
        service Models { rpc ListModels(Model) returns (Model); }
    """,
}
MODEL = """
import mlflow
import mlflow_pb2
import model_service_pb2
import models_pb2
from mlflow.pyfunc.model import PythonModel

class Brings(PythonModel):
    def predict(self, context, model_input, params=None):
        theirs = model_service_pb2.iris_input(other="theirs"), mlflow_pb2.Input(other=2), models_pb2.Model(name=b"3")
        return [" ".join(str(each).strip() for each in theirs)] * len(model_input)

mlflow.models.set_model(Brings())
"""


@pytest.fixture(scope="module")
def brings_protos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the code that protoc generates from those files."""
    folder = tmp_path_factory.mktemp("brings")
    code = folder / "code"
    code.mkdir()
    for name, text in THEIRS.items():
        (folder / name).write_text(text)
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--python_out={code}", *THEIRS],
        check=True,
        cwd=folder,
    )
    (folder / "model.py").write_text(MODEL)
    signature = ModelSignature(Schema([ColSpec(DataType.double, "x")]), Schema([ColSpec(DataType.string)]))
    save = (
        "import mlflow, pickle, sys; from mlflow.models import ModelSignature; "
        "mlflow.pyfunc.save_model(sys.argv[1], python_model=sys.argv[2], pip_requirements=[], "
        "code_paths=sys.argv[3].split(), signature=ModelSignature.from_dict(eval(sys.argv[4])))"
    )
    # In a separate process, because generated code registers itself in the pool of the tests' own messages.
    subprocess.run(
        [
            sys.executable, "-c", save, str(folder / "saved"), str(folder / "model.py"),
            " ".join(str(code / f"{Path(name).stem}_pb2.py") for name in THEIRS), str(signature.to_dict()),
        ],
        check=True,
        env={"PYTHONPATH": str(code), "PATH": ""},
    )  # fmt: skip
    return folder / "saved"


@pytest.mark.deep
def test_a_model_with_protos_of_the_same_names(start, connect, brings_protos):
    """The model is loaded and uses its own messages; the server answers with its own, plain and typed."""
    process = start("-m", str(brings_protos), "--model-name", "iris")
    call = connect(process)
    expected = 'other: "theirs" other: 2 name: "3"'
    answer = call(json.dumps({"dataframe_split": {"columns": ["x"], "data": [[1.0]]}}))
    assert json.loads(answer) == {"predictions": [expected]}
    typed = TypedCaller(call.channel)
    assert typed("iris_predict", {"x": 1.0}).prediction == expected
    assert list(typed("iris_predict_batch", {"x": [1.0, 2.0]}).prediction) == [expected] * 2
    assert [model.qualified_name for model in typed("get_models", {}).models] == ["iris"]
