"""Loads MLflow models, each with its own Python code or not at all.

Rule of this module: models are loaded one after the other. Unpickling imports modules, and two threads that import
modules of one package at the same time can deadlock. MLflow also hands over code in places that the whole process
shares: `sys.path` and `sys.modules`, the object that a model's file has set, the configuration that this file reads.
Nothing that one model has left there is taken for another's.
"""

import hashlib
import importlib
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc import internals

# A model may load another one while it is loaded itself.
_one_at_a_time = threading.RLock()

_brought: dict[str, tuple[str, str]] = {}
"""By the name under which code is imported: the digest of the code, and the model that has brought it."""

_CODE_FILES = frozenset({".py", ".so", ".pyd"})


def load_model(
    uri: str,
    *,
    directory: Path | None = None,
    config: dict[str, Any] | None = None,
    suppress_warnings: bool = False,
) -> PyFuncModel:
    """Does what `mlflow.pyfunc.load_model` does, for one model at a time: a second caller waits for the first.

    Args:
        uri: Any URI that MLflow knows, or a directory.
        directory: Where it is, if it has been fetched already.
        config: MLflow's `model_config`.
        suppress_warnings: Whether MLflow keeps what it would warn of to itself.

    Raises:
        StartError: It brings code of a name under which another model has brought other code.

    """
    if directory is None:
        directory = Path(uri) if Path(uri).exists() else Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    flavors = {name: flavor for name, flavor in Model.load(str(directory)).flavors.items() if isinstance(flavor, dict)}
    folders = [directory / folder for flavor in flavors.values() if (folder := flavor.get(internals.CODE))]
    with _one_at_a_time:
        before = set(_brought)
        try:
            for folder in folders:
                _claim(folder, uri)
            if internals.has_own_code(flavors):
                internals.forget_model_from_code()
            loaded: PyFuncModel = mlflow.pyfunc.load_model(
                str(directory), suppress_warnings=suppress_warnings, model_config=config
            )
        except BaseException:
            _give_back(set(_brought) - before, folders)
            raise
        finally:
            _forget_impossible_paths()
        return loaded


def _forget_impossible_paths() -> None:
    """Takes from `sys.path` what no file can be called. An MLmodel file may name such code, and after that no model
    could import anything.
    """
    sys.path[:] = [path for path in sys.path if _can_be_a_path(path)]


def _can_be_a_path(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _claim(folder: Path, uri: str) -> None:
    """Takes the names of a model's code, which Python imports once for the whole process."""
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        name, digest = place.name.partition(".")[0], _digest(place)
        if not digest:
            continue
        known, owner = _brought.setdefault(name, (digest, uri))
        if known != digest:
            raise StartError(
                f"it brings Python code along that is imported as {name!r}, and so does the model at {owner}, whose is "
                "another: one process can hold only one of them. Give the code another name, or serve the models in "
                "servers of their own"
            )


def _give_back(names: set[str], folders: list[Path]) -> None:
    """Forgets the code of a model that was not loaded, so that another one can bring code of the same names: an older
    version of it, say.

    Args:
        names: Those that this model was the first to bring. Code that a model shares with another one stays.
        folders: Where its code is.

    """
    for name in names:
        del _brought[name]
    for name, module in list(sys.modules.items()):
        # A library may have the same name, and was there before.
        if name.partition(".")[0] in names and any(_is_of(module, folder) for folder in folders):
            del sys.modules[name]
    if names:
        theirs = {str(folder) for folder in folders}
        sys.path[:] = [path for path in sys.path if path not in theirs]
        importlib.invalidate_caches()


def _is_of(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(isinstance(place, str) and Path(place).is_relative_to(folder) for place in places)


def _digest(place: Path) -> str:
    """Of a module or a package, with the files that it may read; empty if there is no code in it."""
    files = sorted(path for path in (place.rglob("*") if place.is_dir() else (place,)) if path.is_file())
    files = [path for path in files if "__pycache__" not in path.parts]
    if not any(path.suffix in _CODE_FILES for path in files):
        return ""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(place.parent)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
