"""Text of exceptions for log lines and error messages.

Rule of this module: it never raises, whatever class the exception has.
"""

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_FOREIGN_CODE = ("<", str(Path(__file__).parents[1]), *sysconfig.get_paths().values())
"""Prefixes of file names in the standard library, in installed packages and in the server."""


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
    outside = [frame for frame in frames if not frame.filename.startswith(_FOREIGN_CODE) and frame.line]
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
