"""The plain case, decoded without MLflow and with its result to the bit.

Rule of this module: it knows one kind of payload (JSON, rows of scalar columns that a signature names or of a
numeric tensor, every cell of its column's own type) and gives None at the first sign of anything else: that
payload goes the way of `mlflow_grpc.payload.mlflow_json.codec`, and MLflow judges. It never refuses.

What makes it fast: orjson, one array in place of a DataFrame for each call, and no cast and no check for cells
that have been seen to be of their column's type. What makes it equal: for cells of these types MLflow's casts
are exact (`mlflow.utils.proto_json_utils`, `mlflow.models.utils._enforce_schema`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
from mlflow.models import Model
from mlflow.types import ColSpec, DataType, TensorSpec

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.fast_json import bulk, cells, prefix_cache, samples

Table = pd.DataFrame | npt.NDArray[Any]


@dataclass(slots=True)
class PlainRows:
    """Rows of one payload, in a form that their decoder knows."""

    cells: Any
    count: int


class PlainDecoder(Protocol):
    """Decodes the plain payloads of one model."""

    def decode(self, text: str) -> PlainRows | None:
        """The rows of a payload, or None if it is not plain."""
        ...

    def row(self, values: list[Any]) -> PlainRows | None:
        """One row of values: a value for each column, or the elements of a row of a tensor; None if it is not plain."""
        ...

    def columns(self, values: list[Any]) -> PlainRows | None:
        """Rows of binary values: for each column an array of its own type, or a list of texts, or one array for a
        tensor; None if they are not plain.
        """
        ...

    def table(self, members: Sequence[PlainRows]) -> Table:
        """The rows of all members, one below the other, as MLflow's checks would hand them to the model."""
        ...

    def array(self, members: Sequence[PlainRows]) -> npt.NDArray[Any]:
        """The same as a bare array, with the layout that it has in the table."""
        ...

    def samples(self, example: str | None, most: int = 64, *, varied: bool = False) -> list[PlainRows]:
        """Single rows to try a model with: those of an example payload and mixtures of them, or if there is no
        example and no column holds strings, made up ones; none if neither is to be had.

        Varied, their numbers are made different, so that no two rows are the same.
        """
        ...


def decoder_for(metadata: Model) -> PlainDecoder | None:
    """The decoder for a model, or None if its signature is none of the plain kind."""
    schema = metadata.get_input_schema()
    if schema is None or metadata.get_params_schema() is not None or internals.is_signature_from_type_hint(metadata):
        return None
    if schema.is_tensor_spec():
        return TensorDecoder.of_spec(schema.inputs[0]) if not schema.has_input_names() else None
    specs: list[ColSpec] = schema.inputs
    kinds = [spec.type for spec in specs if isinstance(spec.type, DataType) and spec.type in cells.OF_COLUMN]
    if not schema.has_input_names() or len(kinds) < len(specs) or not all(spec.required for spec in specs):
        return None
    # A frame may have integers for names, and MLflow takes an empty one for none.
    names = [spec.name for spec in specs if isinstance(spec.name, str) and spec.name]
    if (
        len(names) < len(specs)
        or not names
        or len(set(names)) < len(names)
        or internals.is_unified_llm_input(dict.fromkeys(names))
    ):
        return None
    if len(set(kinds)) == 1 and kinds[0] is not DataType.string:
        return MatrixDecoder(names, kinds[0])
    return ColumnDecoder(names, kinds)


class _NamedDecoder(ABC):
    """What the decoders for named columns share: finding the columns' cells in a payload."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._width = len(names)
        self._places = lru_cache(maxsize=64)(self._find_places)
        self.heads = prefix_cache.Heads(self._places)
        self._read: dict[str, Callable[[Any], PlainRows | None]] = {
            "dataframe_split": self._split,
            "dataframe_records": self._records,
            "inputs": self._columns,
            "instances": self._records,
        }

    def decode(self, text: str) -> PlainRows | None:
        """The rows of a payload, or None if it is not plain."""
        if (known := self.heads.split(text)) is not None:
            places, rows = known
            return self._of_table(rows, places)
        key, value = _only_entry(text) or ("", None)
        read = self._read.get(key)
        found = read(value) if read is not None else None
        if found is not None and key == "dataframe_split":
            self.heads.learn(text)
        return found

    def row(self, values: list[Any]) -> PlainRows | None:
        """One row of a value for each column."""
        return self._of_columns([[value] for value in values]) if len(values) == self._width else None

    def _find_places(self, names: tuple[str, ...]) -> list[int] | None:
        """Where each column of the signature stands among a payload's, if they are the same ones."""
        if len(names) != self._width or set(names) != set(self._names):
            return None
        return [names.index(name) for name in self._names]

    def _split(self, value: Any) -> PlainRows | None:
        if type(value) is not dict or value.keys() != _SPLIT_KEYS:
            return None
        names = value["columns"]
        if type(names) is not list or set(map(type, names)) != {str}:
            return None
        places = self._places(tuple(names))
        return self._of_table(value["data"], places) if places is not None else None

    def _of_table(self, rows: Any, places: list[int]) -> PlainRows | None:
        if type(rows) is not list or not _is_rectangle(rows, self._width):
            return None
        return self._of_rows(_flat(rows), places)

    def _records(self, value: Any) -> PlainRows | None:
        if type(value) is not list or set(map(type, value)) != {dict} or set(map(len, value)) != {self._width}:
            return None
        try:
            found = [record[name] for record in value for name in self._names]
        except KeyError:
            return None
        return self._of_rows(found, list(range(self._width)))

    def _columns(self, value: Any) -> PlainRows | None:
        if type(value) is not dict or len(value) != self._width or set(map(type, value.values())) != {list}:
            return None
        if len(set(map(len, value.values()))) != 1:
            return None
        try:
            found = [value[name] for name in self._names]
        except KeyError:
            return None
        return self._of_columns(found) if found[0] else None

    @abstractmethod
    def _of_rows(self, flat: list[Any], places: list[int]) -> PlainRows | None:
        """Takes cells row by row; `places` tells where in a row each column of the signature stands."""

    @abstractmethod
    def _of_columns(self, columns: list[list[Any]]) -> PlainRows | None:
        """Takes cells column by column."""


class ColumnDecoder(_NamedDecoder):
    """For columns of several types, or of strings; keeps an array or a list for each column."""

    def __init__(self, names: list[str], kinds: list[DataType]) -> None:
        super().__init__(names)
        self._kinds = kinds

    def table(self, members: Sequence[PlainRows]) -> pd.DataFrame:
        """The rows of all members as a frame."""
        merged = [_joined(parts) for parts in zip(*(rows.cells for rows in members), strict=True)]
        return pd.DataFrame(dict(zip(self._names, merged, strict=True)))

    def array(self, members: Sequence[PlainRows]) -> npt.NDArray[Any]:
        """The rows of all members as an array of objects."""
        return self.table(members).to_numpy()

    def samples(self, example: str | None, most: int = 64, *, varied: bool = False) -> list[PlainRows]:
        """Single rows to try a model with."""
        rows = self.decode(example) if example else None
        if rows is None and DataType.string in self._kinds:
            return []
        columns = rows.cells if rows else [samples.made_up(kind.to_numpy()) for kind in self._kinds]
        vary = samples.Variation() if varied else None
        return [
            PlainRows(
                [samples.varied(column[at : at + 1], vary) for column, at in zip(columns, places, strict=True)], 1
            )
            for places in samples.mixtures(len(columns[0]), self._width, most)
        ]

    def columns(self, values: list[Any]) -> PlainRows | None:
        """Rows of binary values."""
        kinds = zip(values, self._kinds, strict=True)
        checked = [cells.OF_COLUMN[kind](column) if kind is DataType.string else column for column, kind in kinds]
        return None if any(column is None for column in checked) else PlainRows(checked, len(values[0]))

    def _of_rows(self, flat: list[Any], places: list[int]) -> PlainRows | None:
        return self._of_columns([flat[place :: self._width] for place in places])

    def _of_columns(self, columns: list[list[Any]]) -> PlainRows | None:
        arrays = [cells.OF_COLUMN[kind](column) for column, kind in zip(columns, self._kinds, strict=True)]
        return None if any(array is None for array in arrays) else PlainRows(arrays, len(columns[0]))


class MatrixDecoder(_NamedDecoder):
    """For columns of one type that is not string; keeps an array of two dimensions."""

    def __init__(self, names: list[str], kind: DataType) -> None:
        super().__init__(names)
        self._index = pd.Index(names)
        self._array_of = cells.OF_COLUMN[kind]
        self._dtype = kind.to_numpy()
        self._is_of_doubles = kind is DataType.double
        self._in_order = list(range(self._width))

    def decode(self, text: str) -> PlainRows | None:
        """The rows of a payload, or None if it is not plain."""
        if self._is_of_doubles and (found := bulk.split(text)):
            names, matrix = found
            if (places := self._places(tuple(names))) and matrix.shape[1] == self._width:
                return self._ordered(matrix, places)
        return super().decode(text)

    def columns(self, values: list[Any]) -> PlainRows | None:
        """Rows of binary values."""
        return PlainRows(np.array(values).T, len(values[0]))

    def table(self, members: Sequence[PlainRows]) -> pd.DataFrame:
        """The rows of all members as a frame."""
        # A copy of the index: a model may give it a name, which must not be there at the next call.
        return pd.DataFrame(self.array(members), columns=self._index.copy(), copy=False)

    def array(self, members: Sequence[PlainRows]) -> npt.NDArray[Any]:
        """The rows of all members. The layout in memory is that of a frame made of columns, so that sums over it
        come out the same; and never the cells themselves, since a model may write into what it is given.
        """
        array: npt.NDArray[Any] = _joined([rows.cells for rows in members]).copy(order="F")
        return array

    def samples(self, example: str | None, most: int = 64, *, varied: bool = False) -> list[PlainRows]:
        """Single rows to try a model with."""
        rows = self.decode(example) if example else None
        matrix = rows.cells if rows else np.stack([samples.made_up(self._dtype) for _ in range(self._width)], axis=1)
        across, vary = np.arange(self._width), samples.Variation() if varied else None
        mixtures = samples.mixtures(len(matrix), self._width, most)
        return [PlainRows(samples.varied(matrix[[places], across], vary), 1) for places in mixtures]

    def _of_rows(self, flat: list[Any], places: list[int]) -> PlainRows | None:
        array = self._array_of(flat)
        return None if array is None else self._ordered(array.reshape(-1, self._width), places)

    def _ordered(self, matrix: npt.NDArray[Any], places: list[int]) -> PlainRows:
        return PlainRows(matrix if places == self._in_order else matrix[:, places], len(matrix))

    def _of_columns(self, columns: list[list[Any]]) -> PlainRows | None:
        array = self._array_of(_flat(columns))
        return None if array is None else PlainRows(array.reshape(self._width, -1).T, len(columns[0]))


class TensorDecoder:
    """For one unnamed tensor of numbers, with rows of a fixed shape; cells are an array."""

    def __init__(self, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self._dtype = dtype
        self._row_shape = row_shape

    @classmethod
    def of_spec(cls, spec: TensorSpec) -> "TensorDecoder | None":
        """The decoder for a tensor, or None if it is none of the plain kind."""
        first, *row_shape = spec.shape
        if first != -1 or any(size < 1 for size in row_shape) or spec.type not in cells.OF_TENSOR:
            return None
        return cls(spec.type, tuple(row_shape))

    def decode(self, text: str) -> PlainRows | None:
        """The rows of a payload, or None if it is not plain."""
        if len(self._row_shape) == 1 and self._dtype == np.float64 and (matrix := bulk.rows(text)) is not None:
            return PlainRows(matrix, len(matrix)) if matrix.shape[1:] == self._row_shape else None
        key, value = _only_entry(text) or ("", None)
        if key not in ("inputs", "instances") or type(value) is not list or not value:
            return None
        level = value
        for size in self._row_shape:
            if not _is_rectangle(level, size):
                return None
            level = _flat(level)
        array = cells.OF_TENSOR[self._dtype](level)
        return None if array is None else PlainRows(array.reshape(-1, *self._row_shape), len(value))

    def row(self, values: list[Any]) -> PlainRows | None:
        """One row of so many elements as its shape has."""
        array = cells.OF_TENSOR[self._dtype](values) if len(values) == math.prod(self._row_shape) else None
        return None if array is None else PlainRows(array.reshape(1, *self._row_shape), 1)

    def columns(self, values: list[Any]) -> PlainRows | None:
        """Rows of binary values."""
        (array,) = values
        own = array.astype(self._dtype, copy=False)
        fits = array.shape[1:] == self._row_shape and (own is array or np.array_equal(own, array))
        return PlainRows(own, len(own)) if fits else None

    def table(self, members: Sequence[PlainRows]) -> npt.NDArray[Any]:
        """The rows of all members."""
        return np.concatenate([rows.cells for rows in members])

    def array(self, members: Sequence[PlainRows]) -> npt.NDArray[Any]:
        """The rows of all members."""
        return self.table(members)

    def samples(self, example: str | None, most: int = 64, *, varied: bool = False) -> list[PlainRows]:
        """Single rows to try a model with."""
        rows = self.decode(example) if example else None
        if rows is None:
            dice = np.random.default_rng(0)
            whole = np.issubdtype(self._dtype, np.integer)
            made = dice.integers(0, 9, (16, *self._row_shape)) if whole else dice.normal(1, 3, (16, *self._row_shape))
            rows = PlainRows(made.astype(self._dtype), 16)
        flat = rows.cells.reshape(rows.count, -1)
        across, vary = np.arange(flat.shape[1]), samples.Variation() if varied else None
        return [
            PlainRows(samples.varied(flat[[places], across], vary).reshape(1, *self._row_shape), 1)
            for places in samples.mixtures(rows.count, flat.shape[1], most)
        ]


_SPLIT_KEYS = {"columns", "data"}


def _only_entry(text: str) -> tuple[str, Any] | None:
    """Key and value of a JSON object that has but one."""
    try:
        payload = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if type(payload) is not dict or len(payload) != 1:
        return None
    (entry,) = payload.items()
    return entry


def _is_rectangle(rows: list[Any], width: int) -> bool:
    if len(rows) == 1:
        return type(rows[0]) is list and len(rows[0]) == width
    return set(map(type, rows)) == {list} and set(map(len, rows)) == {width}


def _flat(rows: list[list[Any]]) -> list[Any]:
    return rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else list(chain.from_iterable(parts))
