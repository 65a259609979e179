"""Finds classes and functions that a configuration names by their path, and makes objects of classes.

Rule of this module: nothing is instantiated that is not known to be what the caller asked for, and every way in which
it can fail is a StartError that names the path.
"""

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow_grpc.errors import StartError

_OTHER_CODE = ("<", str(Path(__file__).parents[1]), *sysconfig.get_paths().values())
"""What the files of the standard library, of installed packages and of the server begin with."""


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


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it, as a traceback shows them: the last one first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def place_in_model(error: BaseException, directory: Path) -> str:
    """Where a model's own code raised, as ` (file, line 3, in function)`; empty if no code of its own did.

    Code of its own is what lies in its directory, or, if nothing there raised, in no directory of installed packages.

    Args:
        error: What came out of it.
        directory: The model's.

    """
    frames = [frame for each in chain(error) for frame in reversed(traceback.extract_tb(each.__traceback__))]
    within = [frame for frame in frames if Path(frame.filename).is_relative_to(directory)]
    outside = [frame for frame in frames if not frame.filename.startswith(_OTHER_CODE) and frame.line]
    for frame in within or outside:
        return f" ({frame.filename}, line {frame.lineno}, in {frame.name})"
    return ""


def text_of(error: BaseException) -> str:
    """What an exception says; a model's own class may fail to."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - whatever the class raises
        return f"(its __str__ raised {type(failure).__name__})"


def one_line(error: BaseException) -> str:
    """An exception as its type and the first 500 characters of its text, on one line."""
    text = " ".join(text_of(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__
