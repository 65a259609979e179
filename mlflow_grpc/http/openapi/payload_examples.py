"""Example payloads of a model in every format that it accepts.

Rule of this module: the model's codec checks each example, with MLflow's own checks, so that no example is refused.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any

from mlflow_grpc.contract.types import Record, has_tensors
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.http.response import JSON
from mlflow_grpc.payload.codec import ChecksPayloads, TextCodec

CSV, PLAIN_TEXT = "text/csv", "text/plain"

UNIFIED, RECORD, WITH_PARAMS = "unified_llm_input", "record", "with_params"
"""Formats without their own key: a chat or a prompt, a bare record, and the first format with all params."""

KEYS = ("dataframe_split", "dataframe_records", "inputs", "instances")
"""MLflow's keys around a payload; each is the name of a format."""

TABLES = ("dataframe_split", "dataframe_records")
"""Those of KEYS whose value is always a table."""

PARAMS = "params"
"""Key of the params beside one of KEYS."""

MAX_ROWS = 2
"""Maximum number of rows in an example."""

MAX_CHARACTERS = 20_000
"""Maximum size of an example in the document, in characters."""


@dataclass(frozen=True)
class Example:
    """A payload that the model accepts."""

    format: str
    """One of KEYS, UNIFIED, RECORD, WITH_PARAMS, or `csv` or `text`."""
    content_type: str
    value: Any
    """JSON value of the payload, or its text if the content type is not JSON."""


def examples_of(model: ServableModel) -> list[Example]:
    """Returns an example for each format that the model accepts, the simplest first.

    They come from the model's own example, which was logged with the model or generated from its schema.
    """
    if isinstance(model.codec, TextCodec):
        return [Example("text", PLAIN_TEXT, "text")]
    codec, info = model.codec, model.model.info
    if not isinstance(codec, ChecksPayloads) or not info.example or info.is_example_typed:
        return []
    accepted: list[Example] = []
    # NaN becomes null, which MLflow reads as a missing value too, because the document must not contain NaN.
    logged = json.loads(info.example, parse_constant=lambda _: None)
    payload, logged_params = _without_params(logged)
    inputs = info.contract.inputs
    has_columns = isinstance(inputs, Record) and not has_tensors(inputs)
    for candidate in _candidates(payload, is_mlmodel=model.rest_records is not None, has_columns=has_columns):
        if candidate.format not in [example.format for example in accepted] and _is_accepted(candidate, codec):
            accepted.append(candidate)
    defaults = {param.name: param.default for param in info.contract.params.fields} if info.contract.params else {}
    first = accepted[0].value if accepted else None
    params = {name: value for name, value in {**defaults, **logged_params}.items() if value is not None}
    if params and isinstance(first, dict):
        is_unified = accepted[0].format == UNIFIED
        # The example of a chat may have been logged with params beside its messages.
        example = Example(WITH_PARAMS, JSON, {**params, **first} if is_unified else {**first, PARAMS: params})
        if example.value != first and _is_accepted(example, codec):
            accepted.append(example)
    return accepted


def _without_params(payload: Any) -> tuple[Any, dict[str, Any]]:
    """Returns a payload without the params beside its table or tensors, and these params, if they are an object.

    MLflow logs them together for `input_example=(data, params)`.
    """
    if isinstance(payload, dict) and any(key in payload for key in KEYS) and isinstance(payload.get(PARAMS), dict):
        return {name: value for name, value in payload.items() if name != PARAMS}, payload[PARAMS]
    return payload, {}


def _is_accepted(example: Example, codec: ChecksPayloads) -> bool:
    try:
        text = example.value if isinstance(example.value, str) else json.dumps(example.value, allow_nan=False)
    except ValueError:  # MLflow reads NaN, but the document must not contain it.
        return False
    return len(text) <= MAX_CHARACTERS and codec.accepts(text, example.content_type)


def _candidates(payload: Any, *, is_mlmodel: bool, has_columns: bool) -> Iterator[Example]:
    """Yields the payload in all formats, first with few rows; the model may refuse some of them.

    Args:
        payload: The example, without params.
        is_mlmodel: True for a model with the MLModel interface, whose example is one record.
        has_columns: True for a signature of columns, which are not tensors.

    """
    if not isinstance(payload, dict):
        return
    (key, *more), values = list(payload) or [""], list(payload.values())
    if is_mlmodel:
        yield Example(RECORD, JSON, payload)
        yield from _of_rows([payload])
        return
    if more or key not in KEYS:
        yield Example(UNIFIED, JSON, payload)
        return
    for value in (_shortened(values[0]), values[0]):
        yield from _of_value(key, value, has_columns=has_columns)


def _of_value(key: str, value: Any, *, has_columns: bool) -> Iterator[Example]:
    rows = _rows(key, value) if has_columns or key in TABLES else None
    if key not in TABLES:
        yield Example(key, JSON, {key: value})
    if rows is not None:
        if len(rows) == 1:
            yield Example(UNIFIED, JSON, rows[0])
        yield from _of_rows(rows)
    yield Example(key, JSON, {key: value})
    if key == "dataframe_split":  # Columns without names.
        value = value.get("data")
    elif isinstance(value, dict) and value and all(isinstance(tensor, list) for tensor in value.values()):
        rows = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
        yield Example("instances", JSON, {"instances": rows})
    for other in ("inputs", "instances"):
        yield Example(other, JSON, {other: value})


def _of_rows(rows: list[dict[str, Any]]) -> Iterator[Example]:
    """Yields named columns in all formats."""
    names = list(rows[0])
    data = [list(row.values()) for row in rows]
    yield Example("dataframe_split", JSON, {"dataframe_split": {"columns": names, "data": data}})
    yield Example("dataframe_records", JSON, {"dataframe_records": list(rows)})
    yield Example("inputs", JSON, {"inputs": {name: [row[name] for row in rows] for name in names}})
    yield Example("instances", JSON, {"instances": list(rows)})
    cells = [cell for row in rows for cell in row.values()]
    if cells and all(isinstance(cell, str | int | float | None) for cell in cells):
        table = StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(data)
        yield Example("csv", CSV, table.getvalue())


def _rows(key: str, value: Any) -> list[dict[str, Any]] | None:
    """Returns the rows of a table whose columns have names; None for any other payload.

    MLflow logs an example that is one record as the record itself, and one of several records as their list.
    """
    match value:
        case {"columns": [*columns], "data": [_, *_] as data} if key == "dataframe_split":
            rows = [dict(zip(map(str, columns), row, strict=False)) for row in data]
        case [{}, *_] if key != "dataframe_split":
            rows = value
        case {} if key not in TABLES:
            rows = [value]
        case _:
            return None
    are_alike = all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows)
    return rows if are_alike and rows[0] else None


def _shortened(value: Any) -> Any:
    """Returns a payload with its first rows."""
    match value:
        case {"data": [*data], **others}:
            kept = {name: item for name, item in others.items() if name != "index"}
            return {**kept, "data": data[:MAX_ROWS]}
        case list():
            return value[:MAX_ROWS]
        case dict():
            return {name: item[:MAX_ROWS] if isinstance(item, list) else item for name, item in value.items()}
    return value
