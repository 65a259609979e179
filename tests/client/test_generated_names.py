"""The generated .proto file compiles in Java, Go and C++, whatever the columns are called.

Not part of `make test`; `make interop` lists what it needs.
"""

from pathlib import Path

import pytest

from mlflow_grpc.contract.types import Contract, DataType, Field, Record, Scalar, Type
from tests.client.test_interop import GO_LIBRARIES, JARS, run, tool
from tests.unit.contract.test_accessors import CLASHES, LONG
from tests.unit.contract.test_proto_text import planned, text_of

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

NAMES = ("descriptor", "Default_Instance", "class", "proto_reflect", "serialized_size", "String", "reset", "get_class")


def test_columns_named_like_methods_of_messages(tmp_path: Path) -> None:
    """Columns have the names of methods that every message has in these languages."""
    compile_columns({name: Scalar(DataType.STRING) for name in NAMES}, tmp_path)


def test_columns_named_like_macros(tmp_path: Path) -> None:
    """Columns have the names of macros of C++ and of GCC's own dialect, and of keywords."""
    names = ("errno", "linux", "UNIX", "int", "NULL", "template", "major", "assert", "EOF")
    compile_columns({name: Scalar(DataType.STRING) for name in names}, tmp_path)


def test_columns_named_like_accessors_of_other_columns(tmp_path: Path) -> None:
    """Columns have the names of methods that these languages, or C#, have for other columns."""
    columns: dict[str, Type] = {"has_error": LONG, "has_params": LONG, "get_x": LONG}
    for index, (name, type_, clashing) in enumerate(CLASHES):
        columns[clashing.replace(name, f"{name}{index}")] = LONG
        columns[f"{name}{index}"] = type_
    compile_columns(columns, tmp_path)


def compile_columns(types: dict[str, Type], tmp_path: Path) -> None:
    """Compiles the messages for columns of any names in Java, Go and C++."""
    columns = Record("", [Field(name, type_) for name, type_ in types.items()])
    params = Record("params", [Field("n", LONG, required=False, default=1)])
    (tmp_path / "model_service.proto").write_text(text_of(planned(Contract(columns, columns, params))))
    java, go, cpp = tmp_path / "java", tmp_path / "go" / "src", tmp_path / "cpp"
    java.mkdir()
    go.mkdir(parents=True)
    cpp.mkdir()
    outputs = (f"--java_out={java}", f"--go_out={go}", f"--cpp_out={cpp}")
    run(tool("protoc"), *outputs, "model_service.proto", cwd=tmp_path)
    run(tool("g++"), "-fsyntax-only", "-std=gnu++17", "-Icpp", "cpp/model_service.pb.cc", cwd=tmp_path)
    files = [str(path) for path in java.rglob("*.java")]
    run(tool("javac"), "-nowarn", "-cp", f"{JARS}/*", "-d", "classes", *files, cwd=tmp_path)
    environment = {"GO111MODULE": "off", "GOPATH": f"{go.parent}:{GO_LIBRARIES}", "GOFLAGS": ""}
    run(tool("go"), "build", "mlflow_grpc/modelspb", cwd=tmp_path, **environment)
