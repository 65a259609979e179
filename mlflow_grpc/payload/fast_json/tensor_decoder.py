"""The fast decoder for models that take one unnamed tensor of numbers.

Rule of this module: it decides only from the shape and type of the tensor whether a payload is plain.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.types import TensorSpec

from mlflow_grpc.payload.fast_json import bulk, cells, samples
from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock
from mlflow_grpc.payload.fast_json.json_rows import flatten, is_rectangle, only_entry


class TensorDecoder:
    """Decodes rows of a fixed shape; the cells of a block are one array."""

    def __init__(self, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self._dtype = dtype
        self._row_shape = row_shape

    @classmethod
    def of_spec(cls, spec: TensorSpec) -> "TensorDecoder | None":
        """Makes the decoder for a tensor; None if its shape or type is not supported."""
        first, *row_shape = spec.shape
        if first != -1 or any(size < 1 for size in row_shape) or spec.type not in cells.OF_TENSOR:
            return None
        return cls(spec.type, tuple(row_shape))

    def decode(self, text: str) -> RowBlock | None:
        """Decodes the rows of a JSON payload; None if the payload is not plain."""
        if len(self._row_shape) == 1 and self._dtype == np.float64 and (matrix := bulk.rows(text)) is not None:
            return RowBlock(matrix, len(matrix)) if matrix.shape[1:] == self._row_shape else None
        key, value = only_entry(text) or ("", None)
        if key not in ("inputs", "instances") or type(value) is not list or not value:
            return None
        level = value
        for size in self._row_shape:
            if not is_rectangle(level, size):
                return None
            level = flatten(level)
        array = cells.OF_TENSOR[self._dtype](level)
        return None if array is None else RowBlock(array.reshape(-1, *self._row_shape), len(value))

    def row(self, values: Sequence[Any]) -> RowBlock | None:
        """Takes the elements of one row; None if they do not fill its shape."""
        array = cells.OF_TENSOR[self._dtype](values) if len(values) == math.prod(self._row_shape) else None
        return None if array is None else RowBlock(array.reshape(1, *self._row_shape), 1)

    def columns(self, values: Any) -> RowBlock | None:
        """Takes an array of rows; None if it has another shape or does not fit the tensor's type exactly."""
        (array,) = values
        converted = array.astype(self._dtype, copy=False)
        fits = array.shape[1:] == self._row_shape and (converted is array or np.array_equal(converted, array))
        return RowBlock(converted, len(converted)) if fits else None

    def without_missing(self) -> "TensorDecoder":
        """Returns itself, because no element of a tensor may be missing."""
        return self

    def table(self, blocks: Sequence[RowBlock]) -> npt.NDArray[Any]:
        """Stacks the rows of all blocks."""
        return np.concatenate([block.cells for block in blocks])

    def array(self, blocks: Sequence[RowBlock]) -> npt.NDArray[Any]:
        """Stacks the rows of all blocks."""
        return self.table(blocks)

    def samples(self, example: str | None, count: int = 64, *, varied: bool = False) -> list[RowBlock]:
        """Makes single rows to try a model with."""
        block = self.decode(example) if example else None
        if block is None:
            block = self._synthetic_block()
        flat = block.cells.reshape(block.count, -1)
        across, jitter = np.arange(flat.shape[1]), samples.Jitter() if varied else None
        return [
            RowBlock(samples.jittered(flat[[rows], across], jitter).reshape(1, *self._row_shape), 1)
            for rows in samples.resample_columns(block.count, flat.shape[1], count)
        ]

    def _synthetic_block(self) -> RowBlock:
        generator = np.random.default_rng(0)
        shape = (16, *self._row_shape)
        is_integer = np.issubdtype(self._dtype, np.integer)
        array = generator.integers(0, 9, shape) if is_integer else generator.normal(1, 3, shape)
        return RowBlock(array.astype(self._dtype), 16)
