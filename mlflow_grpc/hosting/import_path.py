"""Import of the classes and functions that a configuration names by their path, and instantiation of the classes.

Rule of this module: only classes that the caller has checked are instantiated, and every failure is a StartError that
names the path.
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
        StartError: The module or class does not exist, or its import raised an exception.

    """
    value = _import(path)
    if not isinstance(value, type):
        raise StartError(f"{path} is not a class, but of type {type(value).__name__}")
    return value


def find_function(path: str) -> Callable[..., Any]:
    """Imports the function at a path such as `package.module.function`.

    Raises:
        StartError: The module or function does not exist, or its import raised an exception.

    """
    value = _import(path)
    if isinstance(value, type) or not callable(value):
        actual = "a class" if isinstance(value, type) else f"of type {type(value).__name__}"
        raise StartError(f"{path} is not a function, but {actual}")
    function: Callable[..., Any] = value
    return function


def _import(path: str) -> Any:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise StartError(f"{path}: {_missing_module_message(module_name, error.name or module_name)}") from error
    except BaseException as error:
        raise StartError(f"{path}: importing {module_name} raised {one_line(error)}") from error
    value = getattr(module, name, None)
    if value is None:
        raise StartError(f"{path}: the module {module_name} has no {name}")
    return value


def _missing_module_message(module_name: str, missing: str) -> str:
    if module_name != missing and not module_name.startswith(f"{missing}."):
        return f"it needs the module {missing!r}, which is not installed; install the package that contains it"
    parent, _, name = missing.rpartition(".")
    if isinstance(getattr(sys.modules.get(parent), name, None), type):
        return f"{missing} is a class; only a class at the top of a module can be named, not one within a class"
    if parent in sys.modules:
        return f"there is no module {missing!r}, though {parent!r} is there"
    return f"there is no module {missing!r}; install the package that it is in, or name its directory in PYTHONPATH"


def derives_from(cls: type, package: str, base: str) -> bool:
    """Returns True if a class derives from a class named `base` in the package, which need not be imported."""
    return any(ancestor.__name__ == base and ancestor.__module__.split(".")[0] == package for ancestor in cls.__mro__)


def make(path: str, cls: type, configuration: dict[str, Any] | None) -> Any:
    """Instantiates a class.

    Args:
        path: Path of the class, for error messages.
        cls: The class.
        configuration: Keyword arguments of the constructor.

    Raises:
        StartError: The class is abstract, does not take the arguments, or its constructor raised an exception.

    """
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise StartError(f"{path} is abstract: it does not define {lacking}")
    try:
        return cls(**(configuration or {}))
    except BaseException as error:
        raise StartError(f"{path} cannot be instantiated: its constructor raised {one_line(error)}") from error
