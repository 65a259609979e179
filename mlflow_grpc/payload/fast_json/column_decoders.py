"""The fast decoders for models whose signature names its columns.

Rule of this module: a payload is plain if it has exactly the signature's columns and `cells` converts each of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.types import DataType

from mlflow_grpc.payload.fast_json import bulk, cells, samples
from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock
from mlflow_grpc.payload.fast_json.json_rows import flatten, is_rectangle, only_entry

_SPLIT_KEYS = {"columns", "data"}


class _NamedDecoder(ABC):
    """Base of the decoders for named columns, which collects the cells of the columns from a payload."""

    def __init__(self, names: list[str], types: list[DataType], *, takes_missing: bool = True) -> None:
        """Takes the columns of the signature.

        Args:
            names: Names of the columns.
            types: Types of the columns.
            takes_missing: True if a number in a column of floats may be null, which becomes NaN.

        """
        self._names = names
        self._types = types
        self._width = len(names)
        self._takes_missing = takes_missing and not cells.OF_FLOATS.keys().isdisjoint(types)
        by_type = {**cells.OF_COLUMN, **cells.OF_FLOATS} if takes_missing else cells.OF_COLUMN
        self._cells = [by_type[data_type] for data_type in types]
        self._column_indexes = lru_cache(maxsize=64)(self._find_column_indexes)
        self._readers: dict[str, Callable[[Any], RowBlock | None]] = {
            "dataframe_split": self._split,
            "dataframe_records": self._records,
            "inputs": self._columns,
            "instances": self._records,
        }

    def decode(self, text: str) -> RowBlock | None:
        """Decodes the rows of a JSON payload; None if the payload is not plain."""
        key, value = only_entry(text, reads_nan=self._takes_missing) or ("", None)
        read = self._readers.get(key)
        return read(value) if read is not None else None

    def without_missing(self) -> Self:
        """Returns a decoder that leaves payloads with missing values to MLflow's parser; itself if it does so."""
        if not self._takes_missing:
            return self
        return type(self)(self._names, self._types, takes_missing=False)

    def _find_column_indexes(self, names: tuple[str, ...]) -> list[int] | None:
        """Returns the index of each column of the signature among a payload's names; None if the names differ."""
        if len(names) != self._width or set(names) != set(self._names):
            return None
        return [names.index(name) for name in self._names]

    def _split(self, value: Any) -> RowBlock | None:
        if type(value) is not dict or value.keys() != _SPLIT_KEYS:
            return None
        names = value["columns"]
        if type(names) is not list or set(map(type, names)) != {str}:
            return None
        indexes = self._column_indexes(tuple(names))
        rows = value["data"]
        if indexes is None or type(rows) is not list or not is_rectangle(rows, self._width):
            return None
        return self._of_rows(flatten(rows), indexes)

    def _records(self, value: Any) -> RowBlock | None:
        if type(value) is not list or set(map(type, value)) != {dict} or set(map(len, value)) != {self._width}:
            return None
        try:
            flat = [record[name] for record in value for name in self._names]
        except KeyError:
            return None
        return self._of_rows(flat, list(range(self._width)))

    def _columns(self, value: Any) -> RowBlock | None:
        if type(value) is not dict or len(value) != self._width or set(map(type, value.values())) != {list}:
            return None
        if len(set(map(len, value.values()))) != 1:
            return None
        try:
            columns = [value[name] for name in self._names]
        except KeyError:
            return None
        return self._of_columns(columns) if columns[0] else None

    def _missing_in(self, sample: int) -> list[int]:
        """Returns the indexes of the columns that are missing in a sample row."""
        return [
            index
            for index, data_type in enumerate(self._types)
            if data_type in cells.OF_FLOATS and samples.is_missing(sample, index)
        ]

    @abstractmethod
    def _of_rows(self, flat: list[Any], indexes: list[int]) -> RowBlock | None:
        """Takes cells row by row; `indexes` has the index in a row of each column of the signature."""

    @abstractmethod
    def _of_columns(self, columns: list[list[Any]]) -> RowBlock | None:
        """Takes cells column by column."""


class ColumnDecoder(_NamedDecoder):
    """Decodes columns of several types, or of strings; the cells of a block are an array or a list for each column."""

    def table(self, blocks: Sequence[RowBlock]) -> pd.DataFrame:
        """Stacks the rows of all blocks in a DataFrame."""
        merged = [_joined(columns) for columns in zip(*(block.cells for block in blocks), strict=True)]
        return pd.DataFrame(dict(zip(self._names, merged, strict=True)))

    def array(self, blocks: Sequence[RowBlock]) -> npt.NDArray[Any]:
        """Stacks the rows of all blocks in an array of objects."""
        return self.table(blocks).to_numpy()

    def samples(self, example: str | None, count: int = 64, *, varied: bool = False) -> list[RowBlock]:
        """Makes single rows to try a model with."""
        block = self.decode(example) if example else None
        if block is None and DataType.string in self._types:
            return []
        dtypes = [data_type.to_numpy() for data_type in self._types]
        columns = block.cells if block else [samples.synthetic_column(dtype) for dtype in dtypes]
        columns = list(map(samples.without_nan, columns))
        jitter = samples.Jitter() if varied else None
        picks = samples.resample_columns(len(columns[0]), self._width, count)
        rows = [
            [samples.jittered(column[i : i + 1], jitter) for column, i in zip(columns, p, strict=True)] for p in picks
        ]
        if varied and self._takes_missing:
            for turn, row in enumerate(rows):
                for index in self._missing_in(turn):
                    row[index] = np.full(1, np.nan, row[index].dtype)
        return [RowBlock(row, 1) for row in rows]

    def row(self, values: Sequence[Any]) -> RowBlock | None:
        """Takes one row with a value for each column."""
        return self.columns(
            [
                [value] if data_type is DataType.string else np.array([value], dtype=data_type.to_numpy())
                for value, data_type in zip(values, self._types, strict=True)
            ]
        )

    def columns(self, values: Any) -> RowBlock | None:
        """Takes rows of binary values in columns."""
        checked = [
            cells.OF_COLUMN[data_type](column) if data_type is DataType.string else column
            for column, data_type in zip(values, self._types, strict=True)
        ]
        return None if any(column is None for column in checked) else RowBlock(checked, len(values[0]))

    def _of_rows(self, flat: list[Any], indexes: list[int]) -> RowBlock | None:
        return self._of_columns([flat[index :: self._width] for index in indexes])

    def _of_columns(self, columns: list[list[Any]]) -> RowBlock | None:
        arrays = [convert(column) for convert, column in zip(self._cells, columns, strict=True)]
        return None if any(array is None for array in arrays) else RowBlock(arrays, len(columns[0]))


class MatrixDecoder(_NamedDecoder):
    """Decodes columns that all have one type other than string; the cells of a block are a two-dimensional array."""

    def __init__(self, names: list[str], types: list[DataType], *, takes_missing: bool = True) -> None:
        super().__init__(names, types, takes_missing=takes_missing)
        self._labels = pd.Index(names)
        self._array_of = self._cells[0]
        self._dtype = types[0].to_numpy()
        self._is_of_doubles = types[0] is DataType.double
        self._signature_order = list(range(self._width))

    def decode(self, text: str) -> RowBlock | None:
        """Decodes the rows of a JSON payload; None if the payload is not plain."""
        if self._is_of_doubles and (split := bulk.split(text)):
            names, matrix = split
            if (indexes := self._column_indexes(tuple(names))) and matrix.shape[1] == self._width:
                return self._ordered(matrix, indexes)
        return super().decode(text)

    def row(self, values: Sequence[Any]) -> RowBlock | None:
        """Takes one row with a value for each column."""
        return RowBlock(np.array([values], dtype=self._dtype), 1)

    def columns(self, values: Any) -> RowBlock | None:
        """Takes rows of binary values in columns."""
        return RowBlock(np.asarray(values).T, len(values[0]))

    def table(self, blocks: Sequence[RowBlock]) -> pd.DataFrame:
        """Stacks the rows of all blocks in a DataFrame."""
        # Copied, because a model may name the labels, and the next call must not see that name.
        return pd.DataFrame(self.array(blocks), columns=self._labels.copy(), copy=False)

    def array(self, blocks: Sequence[RowBlock]) -> npt.NDArray[Any]:
        """Stacks the rows of all blocks in a new array.

        Its memory layout is that of a DataFrame made of columns, so that sums over it have the same result. It never
        shares memory with a block, because a model may write into its input.
        """
        array: npt.NDArray[Any] = _joined([block.cells for block in blocks]).copy(order="F")
        return array

    def samples(self, example: str | None, count: int = 64, *, varied: bool = False) -> list[RowBlock]:
        """Makes single rows to try a model with."""
        block = self.decode(example) if example else None
        columns = list(block.cells.T) if block else [samples.synthetic_column(self._dtype)] * self._width
        matrix = np.stack(list(map(samples.without_nan, columns)), axis=1)
        across, jitter = np.arange(self._width), samples.Jitter() if varied else None
        picks = samples.resample_columns(len(matrix), self._width, count)
        rows = [samples.jittered(matrix[[rows], across], jitter) for rows in picks]
        if varied and self._takes_missing:
            for turn, row in enumerate(rows):
                row[:, self._missing_in(turn)] = np.nan
        return [RowBlock(row, 1) for row in rows]

    def _of_rows(self, flat: list[Any], indexes: list[int]) -> RowBlock | None:
        array = self._array_of(flat)
        return None if array is None else self._ordered(array.reshape(-1, self._width), indexes)

    def _ordered(self, matrix: npt.NDArray[Any], indexes: list[int]) -> RowBlock:
        return RowBlock(matrix if indexes == self._signature_order else matrix[:, indexes], len(matrix))

    def _of_columns(self, columns: list[list[Any]]) -> RowBlock | None:
        array = self._array_of(flatten(columns))
        return None if array is None else RowBlock(array.reshape(self._width, -1).T, len(columns[0]))


def _joined(columns: Sequence[Any]) -> Any:
    """Joins arrays or lists; a single one is returned itself."""
    if len(columns) == 1:
        return columns[0]
    return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else list(chain.from_iterable(columns))
