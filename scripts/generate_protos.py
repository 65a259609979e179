"""Makes the descriptor sets that server and client read their messages from, and the client's copy of the writer of
.proto files (`make protos`).

A descriptor set, loaded into a pool of its own, is used instead of generated modules: those register
in the process-wide pool, where `Input` and `Output`, which stand in no package, would clash with the
messages of a hosted model or with stubs that a user made from mlflow.proto.

The writer is one for both, so that a .proto file is the same whether a server or a client has written it. Neither
distribution requires the other, so each has the module.
"""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "mlflow_grpc" / "protos" / "mlflow.binpb"
CLIENT = ROOT / "client" / "mlflow_grpc_client" / "mlflow.binpb"
WRITER = ROOT / "mlflow_grpc" / "contract" / "proto_text.py"
WRITER_IN_CLIENT = ROOT / "client" / "mlflow_grpc_client" / "proto_text.py"
COPIED = "# A copy of mlflow_grpc/contract/proto_text.py, made by `make protos`: change that one.\n"

PACKAGED = ROOT / "mlflow_grpc" / "protos"
SOURCES = ("mlflow.proto", "mlflow_grpc/v1/models.proto")


def compile_contract() -> list[descriptor_pb2.FileDescriptorProto]:
    """The server's own .proto files as protoc sees them, with their comments."""
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
                *SOURCES,
            ]
        )
        if code != 0:
            raise SystemExit(f"protoc failed with exit code {code}")
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def without_comments(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """A copy of a file for those who do not show it."""
    copy = descriptor_pb2.FileDescriptorProto()
    copy.CopyFrom(file)
    copy.ClearField("source_code_info")
    return copy


def proto_of(descriptor: FileDescriptor) -> descriptor_pb2.FileDescriptorProto:
    """The description of a file that an installed package has registered."""
    proto = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(proto)
    return proto


def contents() -> dict[Path, bytes]:
    """What each file that this script makes has to hold."""
    contract = compile_contract()
    for_client = [
        *(proto_of(module.DESCRIPTOR) for module in (any_pb2, duration_pb2)),
        *(proto_of(module.DESCRIPTOR) for module in (status_pb2, error_details_pb2, health_pb2, reflection_pb2)),
        *map(without_comments, contract),
    ]
    sets = {
        path: descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True)
        for path, files in ((SERVER, contract), (CLIENT, for_client))
    }
    return {**sets, WRITER_IN_CLIENT: (COPIED + WRITER.read_text(encoding="utf-8")).encode()}


def main() -> None:
    """Writes the files, or with --check says which are stale and exits with 1."""
    stale = [path for path, data in contents().items() if not path.exists() or path.read_bytes() != data]
    if "--check" in sys.argv:
        if stale:
            raise SystemExit(f"stale, run `make protos`: {', '.join(str(path.relative_to(ROOT)) for path in stale)}")
        return
    for path, data in contents().items():
        path.write_bytes(data)


if __name__ == "__main__":
    main()
