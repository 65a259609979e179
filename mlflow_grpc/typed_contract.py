"""The typed messages and RPCs of a configuration's models, for `mlflow-grpc proto`.

Rule of this module: it makes them in the same way as a server, and serves nothing.
"""

from dataclasses import dataclass

from _mlflow_grpc_protocol import descriptor_sets, proto_text
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2, status_pb2

from mlflow_grpc import protos
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract import comments
from mlflow_grpc.contract.lockfile.compatibility import Verdict
from mlflow_grpc.contract.lockfile.format import LockFile
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.engine import loading, typed_plan
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings


@dataclass(frozen=True)
class TypedContract:
    """Messages and RPCs of a server's models."""

    text: str
    """Text of the .proto file."""
    data: bytes
    """Serialized FileDescriptorSet of the file, mlflow.proto, the types of error details, and the imports of all."""
    lock: LockFile
    """Names and numbers of this version and of earlier ones."""
    verdicts: list[Verdict]
    """Differences of each model from its lock."""


def typed_contract(settings: Settings, configuration: Configuration, *, make_lock: bool) -> TypedContract:
    """Loads the models and makes their typed messages and RPCs.

    Args:
        settings: Settings for all models.
        configuration: The models.
        make_lock: True if the lock file of the settings may be missing, because it is about to be written.

    Raises:
        StartError: A model cannot be loaded, no model has a signature or schemas, or a lock is invalid.

    """
    locks = LockSet.from_file(settings.lock, may_be_missing=make_lock)
    catalog = loading.load_all(configuration, settings)
    maker, planned = typed_plan.plan(catalog, locks)
    if not planned:
        raise StartError("there are no typed RPCs: no model has a signature or schemas that messages can be made of")
    verdicts = [
        verdict for entry in catalog.entries if (verdict := typed_plan.verdict(entry, catalog, locks)) is not None
    ]
    verdicts += locks.missing({verdict.lock_key for verdict in verdicts})
    file = comments.described(maker.file, maker.comments)
    return TypedContract(proto_text.text_of(file), _set_of(file), locks.updated(maker.locks), verdicts)


def _set_of(file: FileDescriptorProto) -> bytes:
    for module in (timestamp_pb2, struct_pb2, error_details_pb2, status_pb2):
        protos.adopt(module.DESCRIPTOR)
    return descriptor_sets.set_of(file.name, {available.name: available for available in (*protos.files(), file)})
