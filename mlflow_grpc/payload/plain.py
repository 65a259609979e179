"""The plain case, decoded without MLflow and with its result to the bit.

Rule of this module: it knows one kind of payload (JSON, rows of scalar columns that a signature names, every
cell of the column's own type) and gives None at the first sign of anything else: that payload goes the way of
`mlflow_grpc.payload.scoring`, and MLflow judges. It never refuses.

What makes it fast: orjson, no DataFrame before the rows of several calls stand together, and no cast and no
check for a column whose cells have been seen to be of its type. What makes it equal: for cells of these
types MLflow's casts are exact (`mlflow.utils.proto_json_utils`, `mlflow.models.utils._enforce_schema`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pandas as pd
from mlflow.models import Model
from mlflow.types import ColSpec, DataType

from mlflow_grpc.hosting import mlflow_internals as internals

_INT32, _INT64, _EXACT = 2**31, 2**63, 2**53

Column = Sequence[Any]


@dataclass(frozen=True, slots=True)
class PlainRows:
    """Rows of one payload: a list of cells for each column, in the order of the signature."""

    columns: list[Column]
    count: int


class PlainDecoder:
    """Decodes the plain payloads of one model."""

    def __init__(self, names: list[str], kinds: list[DataType]) -> None:
        """Args:
        names: The columns of the signature, all of them required.
        kinds: Their types.
        """
        self._names = names
        self._index = pd.Index(names)
        self._dtypes = [kind.to_numpy() for kind in kinds]
        self._checks = [_CHECKS[kind] for kind in kinds]
        self._uniform = self._dtypes[0] if len(set(kinds)) == 1 and kinds[0] is not DataType.string else None
        self._places = lru_cache(maxsize=64)(self._find_places)

    @classmethod
    def of_model(cls, metadata: Model) -> "PlainDecoder | None":
        """The decoder for a model, or None if its signature is none of the plain kind."""
        schema = metadata.get_input_schema()
        if schema is None or schema.is_tensor_spec() or not schema.has_input_names() or not schema.inputs:
            return None
        if metadata.get_params_schema() is not None or internals.is_signature_from_type_hint(metadata):
            return None
        specs: list[ColSpec] = schema.inputs
        names = [str(spec.name) for spec in specs]
        kinds = [spec.type for spec in specs if isinstance(spec.type, DataType) and spec.type in _CHECKS]
        if len(set(names)) < len(names) or internals.is_unified_llm_input(dict.fromkeys(names)):
            return None
        if len(kinds) < len(specs) or not all(spec.required for spec in specs):
            return None
        return cls(names, kinds)

    def decode(self, text: str) -> PlainRows | None:
        """The rows of a payload, or None if it is not plain."""
        try:
            payload = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if type(payload) is not dict or len(payload) != 1:
            return None
        ((key, value),) = payload.items()
        read = self._READERS.get(key)
        columns = read(self, value) if read else None
        if not columns:
            return None
        count = len(columns[0])
        if not count:
            return None
        for column, check in zip(columns, self._checks, strict=True):
            if len(column) != count or not check(column):
                return None
        return PlainRows(columns, count)

    def frame(self, members: Sequence[PlainRows]) -> pd.DataFrame:
        """The rows of all members, one below the other, as MLflow's checks would hand them to the model."""
        merged: Sequence[Column]
        if len(members) == 1:
            merged = members[0].columns
        else:
            merged = [
                list(chain.from_iterable(parts)) for parts in zip(*(rows.columns for rows in members), strict=True)
            ]
        if self._uniform is not None:
            # The layout in memory is that of a frame made of columns: sums over it come out the same.
            return pd.DataFrame(np.array(merged, dtype=self._uniform).T, columns=self._index, copy=False)
        return pd.DataFrame(
            {
                name: column if dtype.kind == "U" else np.array(column, dtype=dtype)
                for name, column, dtype in zip(self._names, merged, self._dtypes, strict=True)
            }
        )

    def samples(self, example: str | None, most: int = 32) -> list[PlainRows]:
        """Single rows to try a model with: those of an example payload and mixtures of them, or if there is no
        example and no column holds strings, made up ones; none if neither is to be had.
        """
        rows = self.decode(example) if example else None
        columns = rows.columns if rows else self._made_up()
        if not columns:
            return []
        count = len(columns[0])
        # Each column turns at a speed of its own, so that rows differ although the example may have but two.
        return [
            PlainRows([[column[(turn + turn * place // 2) % count]] for place, column in enumerate(columns)], 1)
            for turn in range(min(most, max(8, count)))
        ]

    def _made_up(self) -> list[Column]:
        if any(dtype.kind == "U" for dtype in self._dtypes):
            return []
        dice = np.random.default_rng(0)
        made = {"f": dice.normal(1, 3, 16), "i": dice.integers(0, 9, 16), "b": dice.integers(0, 2, 16).astype(bool)}
        return [dice.permutation(made[dtype.kind]).tolist() for dtype in self._dtypes]

    def _find_places(self, names: tuple[str, ...]) -> list[int] | None:
        """Where each column of the signature stands among a payload's, if they are the same ones."""
        if len(names) != len(self._names) or set(names) != set(self._names):
            return None
        return [names.index(name) for name in self._names]

    def _split(self, value: Any) -> list[Column] | None:
        if type(value) is not dict or value.keys() != _SPLIT_KEYS:
            return None
        names, rows = value["columns"], value["data"]
        if type(names) is not list or type(rows) is not list or set(map(type, names)) != {str}:
            return None
        places = self._places(tuple(names))
        if places is None or set(map(type, rows)) != {list} or set(map(len, rows)) != {len(names)}:
            return None
        columns = list(zip(*rows, strict=True))
        return [columns[place] for place in places]

    def _records(self, value: Any) -> list[Column] | None:
        if type(value) is not list or set(map(type, value)) != {dict} or set(map(len, value)) != {len(self._names)}:
            return None
        try:
            return [[record[name] for record in value] for name in self._names]
        except KeyError:
            return None

    def _inputs(self, value: Any) -> list[Column] | None:
        if type(value) is not dict or len(value) != len(self._names) or set(map(type, value.values())) != {list}:
            return None
        try:
            return [value[name] for name in self._names]
        except KeyError:
            return None

    _READERS: dict[str, Callable[["PlainDecoder", Any], list[Column] | None]] = {  # noqa: RUF012 - never changed
        "dataframe_split": _split,
        "dataframe_records": _records,
        "inputs": _inputs,
        "instances": _records,
    }


_SPLIT_KEYS = {"columns", "data"}


def _booleans(column: Column) -> bool:
    return set(map(type, column)) == {bool}


def _strings(column: Column) -> bool:
    # numpy, which MLflow goes through in two formats, drops NULs at the end of a text.
    return set(map(type, column)) == {str} and not any("\0" in text for text in column)


def _integers(limit: int) -> Callable[[Column], bool]:
    def check(column: Column) -> bool:
        return set(map(type, column)) == {int} and -limit <= min(column) and max(column) < limit

    return check


def _floats(column: Column) -> bool:
    # orjson makes a float of an integer past 64 bits, which MLflow sees as the integer it is; and integers
    # past 2**53 have no exact float.
    kinds = set(map(type, column))
    if kinds == {float}:
        return bool(min(column) > -_INT64 and max(column) < _INT64)
    return bool(kinds <= {float, int} and min(column) > -_EXACT and max(column) < _EXACT)


_CHECKS: dict[DataType, Callable[[Column], bool]] = {
    DataType.boolean: _booleans,
    DataType.integer: _integers(_INT32),
    DataType.long: _integers(_INT64),
    DataType.double: _floats,
    DataType.string: _strings,
}
