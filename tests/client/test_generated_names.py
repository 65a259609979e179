"""The generated .proto file compiles in Java and Go, whatever the columns are called.

Not part of `make test`; `make interop` lists what it needs.
"""

from pathlib import Path

import pytest

from mlflow_grpc.contract.types import Contract, DataType, Field, Record, Scalar
from tests.client.test_interop import GO_LIBRARIES, JARS, run, tool
from tests.unit.contract.test_proto_text import planned, text_of

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

NAMES = ("descriptor", "Default_Instance", "class", "proto_reflect", "serialized_size", "String", "reset", "get_class")


def test_columns_named_like_methods_of_messages(tmp_path: Path) -> None:
    """Columns have the names of methods that every message has in these languages."""
    columns = Record("", [Field(name, Scalar(DataType.STRING)) for name in NAMES])
    (tmp_path / "model_service.proto").write_text(text_of(planned(Contract(columns, columns))))
    java, go = tmp_path / "java", tmp_path / "go" / "src"
    java.mkdir()
    go.mkdir(parents=True)
    run(tool("protoc"), f"--java_out={java}", f"--go_out={go}", "model_service.proto", cwd=tmp_path)
    files = [str(path) for path in java.rglob("*.java")]
    run(tool("javac"), "-nowarn", "-cp", f"{JARS}/*", "-d", "classes", *files, cwd=tmp_path)
    environment = {"GO111MODULE": "off", "GOPATH": f"{go.parent}:{GO_LIBRARIES}", "GOFLAGS": ""}
    run(tool("go"), "build", "mlflow_grpc/modelspb", cwd=tmp_path, **environment)
