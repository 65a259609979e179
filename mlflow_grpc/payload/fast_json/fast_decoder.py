"""The interface of fast decoders, and the rows that they make.

Rule of this module: a fast decoder returns None for any payload that it is not certain about. It never refuses one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
import pandas as pd

Table = pd.DataFrame | npt.NDArray[Any]


@dataclass(slots=True)
class RowBlock:
    """Rows of one payload, in the form that their decoder uses."""

    cells: Any
    count: int


class FastDecoder(Protocol):
    """Decodes payloads of plain rows for one model."""

    def decode(self, text: str) -> RowBlock | None:
        """Decodes the rows of a JSON payload; None if the payload is not plain."""
        ...

    def row(self, values: Sequence[Any]) -> RowBlock | None:
        """Takes one row of binary values; None if they are not plain.

        Args:
            values: For each column a value that its type holds, or the elements of one row of a tensor.

        """
        ...

    def columns(self, values: Any) -> RowBlock | None:
        """Takes rows of binary values in columns; None if they are not plain.

        Args:
            values: For each column an array of the column's own type, or a list of strings; for a tensor one array. If
                all columns have one type, they may be the rows of one array.

        """
        ...

    def table(self, blocks: Sequence[RowBlock]) -> Table:
        """Stacks the rows of all blocks in the table that MLflow's checks would pass to the model."""
        ...

    def array(self, blocks: Sequence[RowBlock]) -> npt.NDArray[Any]:
        """Stacks the rows of all blocks in a bare array, with the memory layout of the table."""
        ...

    def without_missing(self) -> "FastDecoder":
        """Returns a decoder that leaves payloads with missing values to MLflow's parser; itself if it does so."""
        ...

    def samples(self, example: str | None, count: int = 64, *, varied: bool = False) -> list[RowBlock]:
        """Makes single rows to try a model with.

        The rows are resampled from the example. Without an example they are synthetic, or none if a column holds
        strings.

        Args:
            example: Payload of the model's input example; None if it has none.
            count: Number of rows.
            varied: True if numbers are jittered, so that no two rows are equal, and values are missing where they may.

        """
        ...
