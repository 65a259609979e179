"""Choice of the lock that applies to a model: from a file for all models, or from the model's own directory.

Rule of this module: it reads lock files and never writes them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlflow_grpc.contract.lockfile import io
from mlflow_grpc.contract.lockfile.compatibility import Change, Side, Verdict
from mlflow_grpc.contract.lockfile.format import FILE_NAME, LockedModel, LockFile
from mlflow_grpc.errors import StartError

MODEL_DIRECTORY_LOCK = f"{FILE_NAME} in the model's directory"


@dataclass(frozen=True)
class LockSet:
    """The locks of a server's models: one file for all models, and the files in the models' own directories."""

    file: LockFile | None = None
    source: str = ""
    """Path of the file for all models, for messages."""

    @classmethod
    def from_file(cls, path: Path | None, *, may_be_missing: bool = False) -> Self:
        """Reads the lock file of a server.

        Args:
            path: The file; None for a server without one.
            may_be_missing: True if a file that does not exist yet counts as an empty one.

        Raises:
            StartError: The file cannot be read, or is not a lock file.

        """
        if path is None:
            return cls()
        return cls(LockFile() if may_be_missing and not path.exists() else io.read(path), str(path))

    @property
    def models(self) -> Mapping[str, LockedModel]:
        """All models of the file by their lock keys, hosted here or not."""
        return self.file.models if self.file is not None else {}

    def find(self, lock_key: str, in_directory: LockFile | None) -> LockedModel | None:
        """Finds the lock of a model: in the file, else in the model's own directory.

        Args:
            lock_key: The model's name, followed by its version unless that is the default version.
            in_directory: The lock file in the model's directory.

        Returns:
            The locked model, or None for a model that no lock knows.

        Raises:
            StartError: The lock file in the directory has several models, and none has this lock key.

        """
        if lock_key in self.models:
            return self.models[lock_key]
        if in_directory is None or not in_directory.models:
            return None
        locked = in_directory.models.get(lock_key)
        if locked is None and len(in_directory.models) > 1:
            lock_keys = ", ".join(in_directory.models)
            raise StartError(f"{MODEL_DIRECTORY_LOCK} has no {lock_key}, but {lock_keys}: keep only the model's own")
        if locked is None or locked.name in [model.name for model in self.models.values()]:
            # Its RPCs need another name: the model has another lock key here, or a model of the file has the name.
            locked = (locked or next(iter(in_directory.models.values()))).model_copy(update={"name": ""})
        return locked

    def source_of(self, lock_key: str) -> str:
        """Names the lock file that applies to a locked model, for messages."""
        return self.source if lock_key in self.models else MODEL_DIRECTORY_LOCK

    def missing(self, lock_keys: Iterable[str]) -> list[Verdict]:
        """Gives a verdict on each model of the file that is not among the lock keys of the models hosted here."""
        gone = [
            lock_key for lock_key, model in self.models.items() if not model.removed and lock_key not in set(lock_keys)
        ]
        text = "the model is no longer hosted"
        return [Verdict(lock_key, (Change(Side.CALLS, lock_key, text, True),), self.source) for lock_key in gone]

    def updated(self, locked: Mapping[str, LockedModel]) -> LockFile:
        """Makes the next version of the file. Models that are not hosted keep their lock and are marked as removed.

        Args:
            locked: The models hosted here, by lock key, as their new messages are.

        """
        gone = {
            lock_key: model.model_copy(update={"removed": True})
            for lock_key, model in self.models.items()
            if lock_key not in locked
        }
        return LockFile(models={**gone, **locked})
