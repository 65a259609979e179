"""How much of an exhaustive test a run does: a sample in `make test`, everything in `make test-deep`.

A sample is the same in each run.
"""

import zlib
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")

SHARE = 11
"""A run that is not deep does one of eleven items."""

is_deep = False
"""True with the option --deep, which is read before tests are collected."""


def examples(count: int) -> int:
    """Returns how many examples Hypothesis generates for a property that a deep run tests with `count` examples."""
    return count if is_deep else max(count // SHARE, 5)


def sample(items: Iterable[Item], key: str = "", share: int = SHARE) -> list[Item]:
    """Returns all items in a deep run, and otherwise a sample.

    Args:
        items: The items.
        key: Tests with different keys, such as the name of a model, mostly have different samples.
        share: A sample has one in this number of items. A small number suits a list of short groups of similar items.
    """
    everything = list(items)
    return everything if is_deep else everything[zlib.crc32(key.encode()) % share :: share]
