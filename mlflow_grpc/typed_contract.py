"""The typed messages and RPCs of a configuration's models, made as a server makes them, for `mlflow-grpc proto`."""

from dataclasses import dataclass

from _mlflow_grpc_protocol import proto_text

from mlflow_grpc import protos
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract import comments
from mlflow_grpc.contract.lockfile.compatibility import Verdict
from mlflow_grpc.contract.lockfile.format import LockFile
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.engine import loading, typed_plan
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings


@dataclass(frozen=True)
class TypedContract:
    """The messages and RPCs that a server makes for its models."""

    text: str
    """Of a .proto file."""
    data: bytes
    """The same as a serialised FileDescriptorSet, with what it imports."""
    lock: LockFile
    """The names and numbers that are in it, and those that were before."""
    verdicts: list[Verdict]
    """How each model differs from what was locked of it."""


def typed_contract(settings: Settings, configuration: Configuration, *, make_lock: bool) -> TypedContract:
    """What a server makes for its models, without one.

    Args:
        settings: What holds for all models.
        configuration: The models.
        make_lock: Whether the lock that the settings name need not be there yet.

    Raises:
        StartError: A model cannot be loaded, none says what it takes, or a lock is no good.

    """
    locks = LockSet.from_file(settings.lock, may_be_missing=make_lock)
    catalog = Catalog(configuration.models, lambda: Engine.from_settings(settings))
    loading.import_libraries(configuration.models)
    for entry in catalog.entries:
        catalog.register(entry, loading.load(entry.config, settings))
    maker, made = typed_plan.plan(catalog, locks)
    if not made:
        raise StartError("there are no typed RPCs: no model has a signature or schemas that messages can be made of")
    verdicts = [found for entry in catalog.entries if (found := typed_plan.verdict(entry, catalog, locks)) is not None]
    verdicts += locks.missing({each.label for each in verdicts})
    file = comments.described(maker.file, maker.comments)
    return TypedContract(proto_text.text_of(file), protos.set_of(file), locks.updated(maker.locks), verdicts)
