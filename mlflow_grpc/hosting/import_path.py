"""Finds classes and functions that a configuration names by their path, and makes objects of classes.

Rule of this module: nothing is instantiated that is not known to be what the caller asked for, and every way in which
it can fail is a StartError that names the path.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line


def find(path: str) -> type:
    """Imports the class at a path such as `package.module.Class`.

    Raises:
        StartError: There is no such module or class, or importing it raised.

    """
    found = _find(path)
    if not isinstance(found, type):
        raise StartError(f"{path} is no class, but of type {type(found).__name__}")
    return found


def find_function(path: str) -> Callable[..., Any]:
    """Imports the function at a path such as `package.module.function`.

    Raises:
        StartError: There is no such module or function, or importing it raised.

    """
    found = _find(path)
    if isinstance(found, type) or not callable(found):
        what = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise StartError(f"{path} is no function, but {what}")
    function: Callable[..., Any] = found
    return function


def _find(path: str) -> Any:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise StartError(f"{path}: {_what_is_missing(module_name, error.name or module_name)}") from error
    except BaseException as error:
        raise StartError(f"{path}: importing {module_name} raised {one_line(error)}") from error
    found = getattr(module, name, None)
    if found is None:
        raise StartError(f"{path}: the module {module_name} has no {name}")
    return found


def _what_is_missing(module_name: str, missing: str) -> str:
    if module_name != missing and not module_name.startswith(f"{missing}."):
        return f"it needs the module {missing!r}, which is not there; install the package that it is in"
    parent, _, name = missing.rpartition(".")
    if isinstance(getattr(sys.modules.get(parent), name, None), type):
        return f"{missing} is a class; only a class at the top of a module can be named, not one within a class"
    if parent in sys.modules:
        return f"there is no module {missing!r}, though {parent!r} is there"
    return f"there is no module {missing!r}; install the package that it is in, or name its directory in PYTHONPATH"


def derives_from(cls: type, package: str, base: str) -> bool:
    """Whether a class derives from one that is called `base` in the package; it need not be imported for that."""
    return any(each.__name__ == base and each.__module__.split(".")[0] == package for each in cls.__mro__)


def make(path: str, cls: type, configuration: dict[str, Any] | None) -> Any:
    """Makes an object of a class.

    Args:
        path: Its path, for words.
        cls: The class.
        configuration: Keyword arguments.

    Raises:
        StartError: The class is abstract, does not take the arguments, or its constructor raised.

    """
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise StartError(f"{path} is abstract: it does not define {lacking}")
    try:
        return cls(**(configuration or {}))
    except BaseException as error:
        raise StartError(f"{path} cannot be made: its constructor raised {one_line(error)}") from error
