"""The typed messages and RPCs of a configuration's models, as a server makes them, for `mlflow-grpc proto`."""

from dataclasses import dataclass

from mlflow_grpc import protos
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract import comments, proto_text
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
    """Text of a .proto file."""
    data: bytes
    """Serialised FileDescriptorSet of the same file and of the files that it imports."""
    lock: LockFile
    """Names and numbers of this and of earlier versions."""
    verdicts: list[Verdict]
    """Comparison of each model with its lock."""


def typed_contract(settings: Settings, configuration: Configuration, *, make_lock: bool) -> TypedContract:
    """Loads the models of a configuration and makes their messages and RPCs, without a server.

    Args:
        settings: Settings for all models.
        configuration: The models.
        make_lock: Whether the lock file of the settings may not exist yet.

    Raises:
        StartError: A model cannot be loaded, no model has a signature or schemas, or a lock file is invalid.

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
