"""The file of typed messages and RPCs for a set of models, and the comparison of each model with its lock.

Rule of this module: it uses contracts and locks, and no loaded model. `mlflow_grpc.engine.typed_plan` selects the
models of a server.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc import protos
from mlflow_grpc.contract import messages, service
from mlflow_grpc.contract.lockfile.compatibility import Change, Side, Verdict, changes
from mlflow_grpc.contract.lockfile.format import LockedModel, LockFile
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.contract.types import Contract


@dataclass(frozen=True)
class TypedModel:
    """A model with typed RPCs."""

    lock_key: str
    """The model's key in lock files, which its messages and RPCs begin with."""
    contract: Contract
    locked: LockedModel | None = None
    """Names and numbers that earlier versions of the model have used."""
    streams: bool = False
    """True if the model answers in chunks."""
    refused: frozenset[RpcKind] = frozenset()
    """RPCs that the model does not get, because they failed on its example."""
    summary: str = ""
    """Comment of its `predict` RPC."""


def make_file(models: Sequence[TypedModel], locks: LockSet) -> tuple[FileMaker, list[ModelMessages]]:
    """Makes one file with the messages and RPCs of all models.

    Args:
        models: The models, in the order of their RPCs.
        locks: Locks of other models. Their names stay free.

    Returns:
        The maker of the file, with its comments; the messages of each model, in the order of the models.

    Raises:
        StartError: A lock has no number left for a new field, or is inconsistent.

    """
    others = [*locks.models.values(), *(model.locked for model in models if model.locked is not None)]
    maker = FileMaker(others)
    planned = [
        maker.add(model.lock_key, model.contract, model.locked, streams=model.streams, refused=model.refused)
        for model in models
    ]
    service.add_service(maker.file, planned)
    for model, its_messages in zip(models, planned, strict=True):
        for rpc in service.rpcs_of(its_messages):
            maker.comments[messages.SERVICE, rpc.name] = service.RPC_COMMENTS.get(rpc.rpc_kind, model.summary)
    return maker, planned


def verdict(
    locks: LockSet,
    lock_key: str,
    in_directory: LockFile | None,
    contract: Contract | None,
    *,
    streams: bool = False,
    refused: frozenset[RpcKind] = frozenset(),
) -> Verdict:
    """Compares a model with its lock.

    Args:
        locks: The locks of the server.
        lock_key: The model's name, followed by its version unless that is the default version.
        in_directory: The lock file in the model's directory.
        contract: The model's inputs and outputs; None if it has no typed RPCs.
        streams: True if the model answers in chunks.
        refused: RPCs that the model does not get.

    Raises:
        StartError: The lock in the model's directory is for other models, or is inconsistent.

    """
    locked = locks.find(lock_key, in_directory)
    if locked is None or (contract is None and locked.removed):
        return Verdict(lock_key)
    if contract is not None and not contract.takes_rows:
        # Earlier servers offered the RPC for rows to models that predict only the first of several rows.
        locked = locked.model_copy(update={"rpcs": tuple(rpc for rpc in locked.rpcs if rpc != RpcKind.BATCH)})
    source = locks.source_of(lock_key)
    maker = None
    if contract is not None:
        maker, _ = make_file([TypedModel(lock_key, contract, locked, streams, refused)], LockSet())
    if maker is None or protos.refusal_of(maker.file):
        return Verdict(lock_key, (Change(Side.CALLS, lock_key, "it no longer has typed RPCs", True),), source)
    return Verdict(lock_key, tuple(changes(locked, maker.locks[lock_key])), source)
