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
        """All models of the file by their labels, hosted here or not."""
        return self.file.models if self.file is not None else {}

    def find(self, label: str, in_directory: LockFile | None) -> LockedModel | None:
        """Finds the lock of a model: in the file, else in the model's own directory.

        Args:
            label: The model's name, followed by its version unless that is the default version.
            in_directory: The lock file in the model's directory.

        Returns:
            The locked model, or None for a model that no lock knows.

        Raises:
            StartError: The lock file in the directory has several models, and none has this label.

        """
        if label in self.models:
            return self.models[label]
        if in_directory is None or not in_directory.models:
            return None
        locked = in_directory.models.get(label)
        if locked is None and len(in_directory.models) > 1:
            labels = ", ".join(in_directory.models)
            raise StartError(f"{MODEL_DIRECTORY_LOCK} has no {label}, but {labels}: keep only the model's own")
        if locked is None or locked.name in [model.name for model in self.models.values()]:
            # Its RPCs need another name: the model has another label here, or a model of the file has the name.
            locked = (locked or next(iter(in_directory.models.values()))).model_copy(update={"name": ""})
        return locked

    def source_of(self, label: str) -> str:
        """Names the lock file that applies to a locked model, for messages."""
        return self.source if label in self.models else MODEL_DIRECTORY_LOCK

    def missing(self, labels: Iterable[str]) -> list[Verdict]:
        """Gives a verdict on each model of the file that is not among the labels of the models hosted here."""
        gone = [label for label, model in self.models.items() if not model.removed and label not in set(labels)]
        text = "the model is no longer hosted"
        return [Verdict(label, (Change(Side.CALLS, label, text, True),), self.source) for label in gone]

    def updated(self, locked: Mapping[str, LockedModel]) -> LockFile:
        """Makes the next version of the file. Models that are not hosted keep their lock and are marked as removed.

        Args:
            locked: The models hosted here, by label, as their new messages are.

        """
        gone = {
            label: model.model_copy(update={"removed": True})
            for label, model in self.models.items()
            if label not in locked
        }
        return LockFile(models={**gone, **locked})
