"""The .proto file of a server's typed RPCs, fetched by reflection, equals that of `mlflow-grpc proto`."""

import asyncio
import subprocess
import sys
from typing import Any

import grpc
import pytest
from _mlflow_grpc_protocol import descriptor_sets
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from mlflow_grpc_client import AsyncClient, Client, PredictError, ProtoFile

from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.contract import messages
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from mlflow_grpc.settings import Settings
from mlflow_grpc.typed_contract import typed_contract
from tests.client.test_cli import run
from tests.client.test_compiled import proto, run_command  # noqa: F401 - a fixture
from tests.support import zoo
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import serving, serving_models

pytestmark = pytest.mark.slow


def test_the_text_equals_the_servers(iris, proto, tmp_path):  # noqa: F811 - a fixture
    """The text is equal to the byte, with comments, in a file and on stdout."""
    file = tmp_path / "had.proto"
    assert run("-a", iris.address, "--proto", "-o", str(file)) == (0, "", "")
    assert file.read_bytes() == proto.read_bytes()
    assert "  // Required.\n" in file.read_text()
    assert run("-a", iris.address, "--proto") == (0, proto.read_text(), "")


def test_the_descriptor_set_equals_the_servers(iris, tmp_path):
    """The descriptor set is equal to the byte, with comments."""
    file = tmp_path / "had.binpb"
    assert run("-a", iris.address, "--proto", "--descriptor-set", "-o", str(file)) == (0, "", "")
    assert file.read_bytes() == run_command("-m", str(iris.path), "--model-name", "iris", "--descriptor-set")


def test_files_with_all_types_are_equal(tmp_path):
    """Files with columns of every type, enums, unions, maps, params and chunks are equal too, with their imports."""
    models = [ModelConfig(class_path="tests.support.newer_models.Echo", endpoint=True)]
    for name in ("every_column", "structures", "params", "tensor", "hint_any"):
        zoo.save(f"rows_{name}", tmp_path / name)
        models.append(ModelConfig(uri=str(tmp_path / name), name=name, endpoint=True))
    settings = Settings(model_uri="(in process)", port=0)
    expected = typed_contract(settings, Configuration(models=tuple(models)), make_lock=False)
    with serving_models([(model, None) for model in models]) as server, Client(server.address) as client:
        proto_file = client.proto_file()
    assert proto_file == ProtoFile(messages.FILE, expected.text, expected.data)
    for word in ("enum ", "map<", "stream ", "Default: ", 'import "google/protobuf/'):
        assert word in proto_file.text, word
    assert files_in(proto_file.descriptor_set)[-3:] == [
        "google/protobuf/timestamp.proto",
        "google/protobuf/struct.proto",
        messages.FILE,
    ]


def files_in(descriptor_set: bytes) -> list[str]:
    """Returns the names of the files in a descriptor set."""
    return [file.name for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file]


def test_the_descriptor_set_has_what_a_proxy_needs(iris):
    """The set has mlflow.proto and the types of error details, each file after its imports, and all types resolve."""
    with Client(iris.address) as client:
        descriptor_set = client.proto_file().descriptor_set
    assert files_in(descriptor_set) == [
        "google/protobuf/duration.proto",
        "google/rpc/error_details.proto",
        "google/protobuf/any.proto",
        "google/rpc/status.proto",
        "mlflow.proto",
        messages.FILE,
    ]
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.Add(file)
    assert pool.FindServiceByName("MLflow").methods_by_name["predict"].input_type.full_name == "Input"
    assert pool.FindServiceByName("MLflowStream").file.name == "mlflow.proto"
    assert pool.FindMessageTypeByName("google.rpc.ErrorInfo").fields_by_name["reason"].number == 1


def test_a_server_that_lacks_a_companion():
    """A set from an older server, which has no types of error details, has the other files."""
    typed, mlflow = (descriptor_pb2.FileDescriptorProto(name=name) for name in (messages.FILE, "mlflow.proto"))
    written = descriptor_sets.set_of(messages.FILE, {file.name: file for file in (typed, mlflow)})
    assert files_in(written) == ["mlflow.proto", messages.FILE]


def test_the_asyncio_client_returns_the_file(iris):
    """The asyncio client returns the same file."""

    async def ask() -> Any:
        async with AsyncClient(iris.address) as client:
            return await client.proto_file()

    with Client(iris.address) as client:
        assert asyncio.run(ask()) == client.proto_file()


def test_a_server_without_typed_rpcs():
    """UNIMPLEMENTED with the reason; the command has exit code 1 and writes nothing."""
    with serving(FunctionModel(str), PlainCodec()) as server:
        with Client(server.address) as client, pytest.raises(PredictError, match="no typed RPCs, or not yet") as caught:
            client.proto_file()
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
        code, out, error = run("-a", server.address, "--proto")
    assert (code, out) == (1, "")
    assert error.startswith("error: UNIMPLEMENTED: The server has no typed RPCs")


def test_a_server_without_reflection(iris):
    """A .proto file from a server without reflection fails with UNIMPLEMENTED."""
    codec = ScoringCodec(iris.model.metadata, iris.model.loader_module)
    with serving(iris.model, codec, reflection=False) as server, Client(server.address) as client:
        with pytest.raises(PredictError, match="no reflection") as caught:
            client.proto_file()
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_wrong_flags_and_unwritable_files(iris, tmp_path):
    """Exit code 2 for flags of --proto without it, and 1 for a file that cannot be written."""
    code, out, error = run("-a", iris.address, "--descriptor-set", "{}")
    assert (code, out, error) == (2, "", "error: --descriptor-set and --output work only with --proto; add --proto\n")
    code, out, error = run("-a", iris.address, "--proto", "-o", str(tmp_path / "no" / "file"))
    assert (code, out) == (1, "")
    assert error == f"error: cannot write {tmp_path / 'no' / 'file'}: No such file or directory\n"


def test_it_needs_neither_mlflow_nor_reflections_library(iris):
    """Modules that the command has imported after it has written the file."""
    code = (
        "import sys; from mlflow_grpc_client._cli import command\n"
        f"try: command.main(['-a', {iris.address!r}, '--proto'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "bad = {'mlflow', 'pandas', 'numpy', 'grpc_reflection.v1alpha', 'mlflow_grpc'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "iris_predict" in done.stdout
