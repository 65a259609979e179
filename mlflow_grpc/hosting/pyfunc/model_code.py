"""Loading of MLflow models that bring Python code along; a model never gets the code of another model.

Rule of this module: models are loaded one after the other. Unpickling imports modules, and two threads that import
modules of the same package at the same time can deadlock. MLflow also passes code on in state that the whole process
shares: `sys.path`, `sys.modules`, the object that a model's file sets, and the configuration that this file reads. The
next model must not see the state that a model leaves there.
"""

import hashlib
import importlib
import importlib.machinery
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel

from mlflow_grpc.errors import OwnCodeDiffers
from mlflow_grpc.hosting.pyfunc import internals

# A model may load another one while it is loaded itself.
_one_at_a_time = threading.RLock()

_owners_by_module: dict[str, tuple[str, str]] = {}
"""Digest of the code, and URI of the model that brought it along, by the name of the module or package."""

_CODE_FILES = frozenset({".py", ".so", ".pyd"})
_IMPORT_SUFFIXES = tuple(importlib.machinery.all_suffixes())


def load_model(
    uri: str,
    *,
    directory: Path | None = None,
    metadata: Model | None = None,
    config: dict[str, Any] | None = None,
    suppress_warnings: bool = False,
) -> PyFuncModel:
    """Calls `mlflow.pyfunc.load_model` for one model at a time; a second caller waits for the first.

    Args:
        uri: Any URI that MLflow supports, or a directory.
        directory: Directory of the model, if it has been fetched already.
        metadata: The model's MLmodel file, if it has been read already.
        config: MLflow's `model_config`.
        suppress_warnings: True to suppress MLflow's warnings.

    Raises:
        OwnCodeDiffers: The model brings code along whose module name is in use by different code of another model.

    """
    if directory is None:
        directory = Path(uri) if Path(uri).exists() else Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    metadata = metadata or Model.load(str(directory))
    flavors = {name: flavor for name, flavor in metadata.flavors.items() if isinstance(flavor, dict)}
    folders = [directory / folder for flavor in flavors.values() if (folder := flavor.get(internals.CODE))]
    with _one_at_a_time:
        before = set(_owners_by_module)
        try:
            for folder in folders:
                _claim_module_names(folder, uri)
            if internals.has_own_code(flavors):
                internals.forget_model_from_code()
            loaded: PyFuncModel = mlflow.pyfunc.load_model(
                str(directory), suppress_warnings=suppress_warnings, model_config=config
            )
        except BaseException:
            _release_module_names(set(_owners_by_module) - before, folders)
            raise
        finally:
            _drop_invalid_paths()
        return loaded


def _drop_invalid_paths() -> None:
    """Removes entries of `sys.path` that no file can be named.

    The MLmodel file of a broken model may contain one, and then no other model could import anything.
    """
    sys.path[:] = [path for path in sys.path if _is_valid_path(path)]


def _is_valid_path(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _claim_module_names(folder: Path, uri: str) -> None:
    """Claims the module names of a model's code, because Python imports a module once for the whole process."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name, digest = path.name.partition(".")[0], _digest(path)
        if not digest:
            continue
        claimed, owner = _owners_by_module.setdefault(name, (digest, uri))
        if claimed != digest:
            raise OwnCodeDiffers(
                f"it brings Python code along that is imported as {name!r}, and so does the model at {owner}, whose "
                "code differs: one process can hold only one of them. Give the code another name, or serve each model "
                "in a server of its own",
                name,
            )


def _release_module_names(names: set[str], folders: list[Path]) -> None:
    """Removes the code of a model that was not loaded.

    Another model, for example an older version, can then use the same module names.

    Args:
        names: The module names that this model was the first to claim. Code that another model shares stays.
        folders: Directories of the model's code.

    """
    for name in names:
        del _owners_by_module[name]
    for name, module in list(sys.modules.items()):
        # A library with the same name may have been imported before.
        if name.partition(".")[0] in names and any(_is_in(module, folder) for folder in folders):
            del sys.modules[name]
    if names:
        removed = {str(folder) for folder in folders}
        sys.path[:] = [path for path in sys.path if path not in removed]
        importlib.invalidate_caches()


def forget_code(directory: Path) -> bool:
    """Forgets the code of a model that is no longer served, except modules that other versions of it may use.

    A later version with the same code uses the modules that the first one has imported. These may import others from
    their directory at any time.

    Returns:
        True if nothing uses the directory, so that it can be deleted.

    """
    if not _may_be_imported(directory):
        return True
    with _one_at_a_time:
        names = [name for name, module in list(sys.modules.items()) if _is_in(module, directory)]
        if any(name.partition(".")[0] in _owners_by_module for name in names):
            return False
        for name in names:
            del sys.modules[name]
        paths = [path for path in sys.path if not _is_below(path, directory)]
        if names or len(paths) < len(sys.path):
            sys.path[:] = paths
            importlib.invalidate_caches()
        return True


def _may_be_imported(directory: Path) -> bool:
    """Returns False if no module can come from a directory.

    A search among thousands of imported modules takes 10 ms, while calls wait for the interpreter.
    """
    is_searched = any(_is_below(path, directory) for path in sys.path)
    return is_searched or any(path.name.endswith(_IMPORT_SUFFIXES) for path in directory.rglob("*"))


def _is_in(module: ModuleType, folder: Path) -> bool:
    attributes = getattr(module, "__dict__", {})  # An attribute of a lazy module would import it.
    paths = [attributes.get("__file__"), *(attributes.get("__path__") or ())]
    return any(isinstance(path, str) and _is_below(path, folder) for path in paths)


def _is_below(path: str, folder: Path) -> bool:
    """Returns True for a directory and what is in it.

    It compares text, because a process has thousands of modules, and calls wait while pathlib parses their paths.
    """
    return path == str(folder) or path.startswith(f"{folder}{os.sep}")


def _digest(root: Path) -> str:
    """Returns the hash of a module or a package with its data files; empty if it has no code."""
    files = sorted(path for path in (root.rglob("*") if root.is_dir() else (root,)) if path.is_file())
    files = [path for path in files if "__pycache__" not in path.parts]
    if not any(path.suffix in _CODE_FILES for path in files):
        return ""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root.parent)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
