"""The parts of an answer, out of the iterator that a model gives.

Rule of this module: what the model raises while it makes a part is the model's; that its caller leaves between two is
not. The iterator is closed either way.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from typing import Any

_END = object()


def each_part(start: Callable[[], Iterable[Any]], told: Callable[[], AbstractContextManager[None]]) -> Generator[Any]:
    """Gives one part after the other.

    Args:
        start: Gives the model's iterator.
        told: Turns what the model raises into errors of our own; entered for each thing that the model does.

    """
    with told():
        parts = iter(start())
    try:
        while True:
            with told():
                part = next(parts, _END)
            if part is _END:
                return
            yield part
    finally:
        close = getattr(parts, "close", None)  # Of a generator, and of what takes after one.
        if close is not None:
            close()
