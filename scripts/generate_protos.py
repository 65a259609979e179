"""Generates the descriptor sets of server and client, and stubs for type checkers (`make protos`).

Server and client load a descriptor set into a private pool instead of importing generated modules. Those would register
in the process-wide pool. There `Input` and `Output`, which have no package, would clash with the messages of a hosted
model or with code that a user made from mlflow.proto. Type checkers read the fields of messages in the stubs
(`*_pb2.pyi`), beside which there are no modules.
"""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "mlflow_grpc" / "protos" / "mlflow.binpb"
OPEN_INFERENCE = ROOT / "mlflow_grpc" / "protos" / "open_inference.binpb"
CLIENT = ROOT / "client" / "mlflow_grpc_client" / "mlflow.binpb"

PACKAGED = ROOT / "mlflow_grpc" / "protos"
SOURCES = ("mlflow.proto", "mlflow_grpc/v1/models.proto", "arrow/flight/flight.proto")
OPEN_INFERENCE_SOURCES = ("open_inference/model_config.proto", "open_inference/grpc_service.proto")


def run_protoc(sources: tuple[str, ...], *options: str) -> None:
    """Runs protoc on .proto files of the server."""
    include = resources.files("grpc_tools") / "_proto"
    code = protoc.main(["protoc", f"-I{ROOT}", f"-I{PACKAGED}", f"-I{include}", *options, *sources])
    if code != 0:
        raise SystemExit(f"protoc failed with exit code {code}")


def compile_files(sources: tuple[str, ...]) -> list[descriptor_pb2.FileDescriptorProto]:
    """Compiles .proto files of the server, and keeps their comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        run_protoc(sources, f"--descriptor_set_out={out}", "--include_source_info")
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def stubs(sources: tuple[str, ...]) -> dict[Path, bytes]:
    """Returns the contents of the stubs for .proto files of the server."""
    with tempfile.TemporaryDirectory() as folder:
        run_protoc(sources, f"--pyi_out={folder}")
        # protoc imports by the paths of .proto files, which are not those of packages.
        return {
            PACKAGED / path.relative_to(folder): path.read_text()
            .replace("from open_inference import", "from mlflow_grpc.protos.open_inference import")
            .encode()
            for path in Path(folder).rglob("*.pyi")
        }


def without_comments(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Copies the description of a file without its comments."""
    copy = descriptor_pb2.FileDescriptorProto()
    copy.CopyFrom(file)
    copy.ClearField("source_code_info")
    return copy


def proto_of(descriptor: FileDescriptor) -> descriptor_pb2.FileDescriptorProto:
    """Returns the description of a file that an installed package has registered."""
    proto = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(proto)
    return proto


def contents() -> dict[Path, bytes]:
    """Returns the contents of each generated file."""
    contract = compile_files(SOURCES)
    open_inference = compile_files(OPEN_INFERENCE_SOURCES)
    for_client = [
        *(proto_of(module.DESCRIPTOR) for module in (any_pb2, duration_pb2, timestamp_pb2)),
        *(proto_of(module.DESCRIPTOR) for module in (status_pb2, error_details_pb2, health_pb2, reflection_pb2)),
        *map(without_comments, contract),
    ]
    sets = {
        path: descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True)
        for path, files in ((SERVER, contract), (OPEN_INFERENCE, open_inference), (CLIENT, for_client))
    }
    return {**sets, **stubs((*SOURCES, *OPEN_INFERENCE_SOURCES))}


def main() -> None:
    """Writes the files. With --check, reports stale files and exits with 1 instead."""
    stale = [path for path, data in contents().items() if not path.exists() or path.read_bytes() != data]
    if "--check" in sys.argv:
        if stale:
            raise SystemExit(f"stale, run `make protos`: {', '.join(str(path.relative_to(ROOT)) for path in stale)}")
        return
    for path, data in contents().items():
        path.write_bytes(data)


if __name__ == "__main__":
    main()
