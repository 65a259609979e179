"""Text of exceptions for log lines and error messages.

Rule of this module: it never raises, even for an exception class with errors of its own.
"""

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_FOREIGN_CODE = ("<", str(Path(__file__).parents[1]), *sysconfig.get_paths().values())
"""Prefixes of file names in the standard library, in installed packages and in the server."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and its causes in the way that a traceback shows them, the last one first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def location_in_model(error: BaseException, directory: Path) -> str:
    """Returns the location of the model's code that raised, as ` (file, line 3, in function)`; empty if none did.

    A model's own code is in its directory. If no code there raised, it is code outside of installed packages.

    Args:
        error: The exception that the model raised.
        directory: The model's directory.

    """
    frames = [frame for cause in chain(error) for frame in reversed(traceback.extract_tb(cause.__traceback__))]
    within = [frame for frame in frames if Path(frame.filename).is_relative_to(directory)]
    outside = [frame for frame in frames if not frame.filename.startswith(_FOREIGN_CODE) and frame.line]
    for frame in within or outside:
        return f" ({frame.filename}, line {frame.lineno}, in {frame.name})"
    return ""


def text_of(error: BaseException) -> str:
    """Returns the text of an exception; the `__str__` of a model's own class may raise."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the class may raise anything
        return f"(its __str__ raised {type(failure).__name__})"


def one_line(error: BaseException) -> str:
    """Returns the type of an exception and the first 500 characters of its text, on one line."""
    text = " ".join(text_of(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__
