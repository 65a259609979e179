"""Generates the descriptor sets of server and client (`make protos`).

Server and client load a descriptor set into a private pool instead of importing generated modules. Those would register
in the process-wide pool. There `Input` and `Output`, which have no package, would clash with the messages of a hosted
model or with stubs that a user made from mlflow.proto.
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


def compile_files(sources: tuple[str, ...]) -> list[descriptor_pb2.FileDescriptorProto]:
    """Compiles .proto files of the server, and keeps their comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        include = resources.files("grpc_tools") / "_proto"
        code = protoc.main(
            [
                "protoc",
                f"-I{ROOT}",
                f"-I{PACKAGED}",
                f"-I{include}",
                f"--descriptor_set_out={out}",
                "--include_source_info",
                *sources,
            ]
        )
        if code != 0:
            raise SystemExit(f"protoc failed with exit code {code}")
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


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
    return {
        path: descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True)
        for path, files in ((SERVER, contract), (OPEN_INFERENCE, open_inference), (CLIENT, for_client))
    }


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
