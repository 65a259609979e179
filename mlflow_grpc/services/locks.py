"""Which lock holds for which model, and whether the model keeps to it.

Rule of this module: a lock file is read when a server starts, and never written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from mlflow_grpc import protos
from mlflow_grpc.contract import lock, service
from mlflow_grpc.contract.compatibility import Change, Side, changes
from mlflow_grpc.contract.lock import Lock, ModelLock
from mlflow_grpc.contract.shapes import RpcKind
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings

IN_THE_DIRECTORY = f"{lock.FILE_NAME} in the model's directory"


@dataclass(frozen=True)
class Verdict:
    """How a model differs from what its lock has of it."""

    label: str
    changes: tuple[Change, ...] = ()
    source: str = ""
    """Where the lock is; empty if none knows the model."""

    @property
    def breaking(self) -> list[Change]:
        """The changes that old clients cannot live with."""
        return [change for change in self.changes if change.breaks]

    def __str__(self) -> str:
        if not self.source:
            return f"{self.label}: new: no lock knows it"
        sides = {change.side for change in self.breaking}
        calls = f"calls of old clients are {'not ' * (Side.CALLS in sides)}taken"
        answers = f"their answers are {'not ' * (Side.ANSWERS in sides)}read"
        head = f"{self.label}: {'in' * bool(sides)}compatible: {calls}, {answers}"
        return "\n".join([head, *(f"  {'breaks' if each.breaks else 'fine'}: {each}" for each in self.changes)])

    @property
    def refusal(self) -> str:
        """Says why the model is not served, and what to do."""
        listed = "; ".join(map(str, self.breaking))
        return (
            f"{self.label} is incompatible with old clients, going by the lock {self.source}: {listed}. Serve a "
            "version that takes their calls; or take the change into the lock with `mlflow-grpc proto --lock FILE` "
            "and give clients the new .proto; or serve it all the same with --allow-incompatible"
        )


@dataclass(frozen=True)
class Locks:
    """The locks of a server's models: one file for all, and those that models have in their directories."""

    file: Lock | None = None
    source: str = ""
    """What the file is called."""

    @classmethod
    def of_settings(cls, settings: Settings, *, may_be_missing: bool = False) -> Self:
        """The locks of a server: with the file that its settings name.

        Raises:
            StartError: It cannot be read, or is no lock.

        """
        path = settings.lock
        if path is None:
            return cls()
        return cls(Lock() if may_be_missing and not path.exists() else lock.read(path), str(path))

    @property
    def known(self) -> list[ModelLock]:
        """What the file has locked, of models that are hosted here and of others."""
        return list(self.file.models.values()) if self.file is not None else []

    def of(self, label: str, own: Lock | None) -> ModelLock | None:
        """What is locked of a model: by the file, or by the lock in its directory if the file does not know it.

        Args:
            label: Its name, and its version where the name means another one.
            own: The lock in its directory.

        Raises:
            StartError: That lock has several models, and none of this name.

        """
        if self.file is not None and label in self.file.models:
            return self.file.models[label]
        if own is None or not own.models:
            return None
        found = own.models.get(label)
        if found is None and len(own.models) > 1:
            raise StartError(
                f"{IN_THE_DIRECTORY} has no {label}, but {', '.join(own.models)}: keep only the model's own"
            )
        if found is None or found.name in [each.name for each in self.known]:
            # It is called otherwise here, and so is its RPC; or another model of the file has the name.
            found = (found or next(iter(own.models.values()))).model_copy(update={"name": ""})
        return found

    def verdict(
        self,
        label: str,
        own: Lock | None,
        contract: Contract | None,
        *,
        streams: bool = False,
        refused: frozenset[RpcKind] = frozenset(),
    ) -> Verdict:
        """How a model differs from what is locked of it.

        Args:
            label: Its name, and its version where the name means another one.
            own: The lock in its directory.
            contract: What it takes and gives; None if it has no typed RPCs.
            streams: Whether it gives answers part by part.
            refused: RPCs that it is not to have.

        Raises:
            StartError: Its lock is not one for it.

        """
        locked = self.of(label, own)
        if locked is None or (contract is None and locked.removed):
            return Verdict(label)
        if contract is not None and not contract.takes_rows:
            # One that answers the first of several rows alone may have had an RPC for them, which never answered.
            locked = locked.model_copy(update={"rpcs": tuple(kind for kind in locked.rpcs if kind != RpcKind.BATCH)})
        source = self.source if self.file is not None and label in self.file.models else IN_THE_DIRECTORY
        maker = None
        if contract is not None:
            maker = service.file_of(label, contract, locked, streams=streams, refused=refused)
        if maker is None or protos.refusal_of(maker.file):
            return Verdict(label, (Change(Side.CALLS, label, "it has no typed RPCs any more", True),), source)
        return Verdict(label, tuple(changes(locked, maker.locks[label])), source)

    def missing(self, labels: Iterable[str]) -> list[Verdict]:
        """Verdicts on the models that the file knows and that are not there any more."""
        known = self.file.models if self.file is not None else {}
        gone = [label for label, each in known.items() if not each.removed and label not in set(labels)]
        what = "the model is not there any more"
        return [Verdict(label, (Change(Side.CALLS, label, what, True),), self.source) for label in gone]

    def updated(self, made: Mapping[str, ModelLock]) -> Lock:
        """The file as it is to be written once messages are made; models that are not there keep what they had."""
        known = self.file.models if self.file is not None else {}
        gone = {label: each.model_copy(update={"removed": True}) for label, each in known.items() if label not in made}
        return Lock(models={**gone, **made})
