"""Iteration over the chunks of a model's streamed answer.

Rule of this module: an exception that the model raises while it computes a chunk is the model's error. A caller that
leaves between two chunks is not an error. The model's iterator is closed in both cases.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from typing import Any

_END = object()


def iterate_chunks(
    start: Callable[[], Iterable[Any]], translate_errors: Callable[[], AbstractContextManager[None]]
) -> Generator[Any]:
    """Yields the chunks in their order.

    Args:
        start: Calls the model and returns its iterator.
        translate_errors: Translates the model's exceptions to errors of this server; entered for every step.

    """
    with translate_errors():
        chunks = iter(start())
    try:
        while True:
            with translate_errors():
                chunk = next(chunks, _END)
            if chunk is _END:
                return
            yield chunk
    finally:
        close = getattr(chunks, "close", None)  # Generators have it, and other iterators may.
        if close is not None:
            close()
