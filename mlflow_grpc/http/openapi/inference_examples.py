"""An example of an inference request with tensors in JSON, from the examples of a model in MLflow's formats.

Rule of this module: the tensors are read back by the model's own codec, so that no example is refused.
"""

import json
from typing import Any

from mlflow_grpc.calls.inference_models import REQUEST, RESPONSE
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import ServingError
from mlflow_grpc.hosting.model import InputRejected
from mlflow_grpc.http.openapi.payload_examples import PARAMS, RECORD, UNIFIED, WITH_PARAMS, Example
from mlflow_grpc.payload.tensors.codec import TensorCodec
from mlflow_grpc.payload.tensors.datatypes import BYTES
from mlflow_grpc.payload.tensors.json_request import read_request
from mlflow_grpc.payload.tensors.reader import CONTENT_TYPE
from mlflow_grpc.payload.tensors.table import BASE64, JSON, TensorColumn, inputs_of

Json = dict[str, Any]

_FLOATS = ("FP32", "FP64")


def inference_examples(model: ServableModel, examples: list[Example]) -> Json:
    """Returns the examples of an OpenAPI document by name: the tensors of a model, and the same with its params.

    Args:
        model: A model that takes records or tensors.
        examples: Its examples in MLflow's formats.

    """
    columns = inputs_of(model.model.info.contract)
    by_format = {example.format: example.value for example in examples}
    values = _values(by_format, columns)
    if not columns or values is None:
        return {}
    codec = TensorCodec(model.codec, model.model.info.contract, RESPONSE, name="", version="")
    bytes_in_json = BASE64 if model.rest_records is None else ""  # MLModel classes have bytes as texts in JSON.
    sent = [column for column in columns if column.name in values]
    # Values that the datatype of a column cannot hold, such as a null among integers, are sent as their JSON.
    for only_json in (False, True):
        inputs = [_tensor(column, values[column.name], bytes_in_json, only_json=only_json) for column in sent]
        if _is_accepted({"inputs": inputs}, codec):
            break
    else:
        return {}
    named = {"tensors": {"value": {"inputs": inputs}}}
    params = by_format.get(WITH_PARAMS, {}).get(PARAMS)
    if params and _is_accepted(with_params := {"parameters": params, "inputs": inputs}, codec):
        named["with_params"] = {"value": with_params}
    return named


def _is_accepted(request: Json, codec: TensorCodec) -> bool:
    try:
        text = json.dumps(request, allow_nan=False)
        codec.decode(read_request(text.encode(), None, REQUEST))
    except (ServingError, InputRejected, ValueError):  # A ValueError for NaN, which the document must not contain.
        return False
    return True


def _values(by_format: Json, columns: tuple[TensorColumn, ...]) -> Json | None:
    """Returns the array of each tensor, or the rows of each column, by name; None if no example has them."""
    if any(column.is_tensor for column in columns):
        value = by_format.get("inputs", {}).get("inputs")
        if columns[0].is_unnamed:
            return None if value is None else {columns[0].name: value}
        return value if isinstance(value, dict) else None
    rows = by_format.get("dataframe_records", {}).get("dataframe_records")
    if rows is None:
        single = by_format.get(RECORD) or by_format.get(UNIFIED)
        rows = [single] if single else None
    if rows:
        return {name: [row[name] for row in rows] for name in rows[0]}
    data = by_format.get("dataframe_split", {}).get("dataframe_split", {}).get("data")
    cells = by_format.get("inputs", {}).get("inputs")
    if len(columns) == 1 and isinstance(cells, list):  # A column without a name, such as that of a type hint.
        return {columns[0].name: cells}
    if data and all(column.is_unnamed for column in columns):
        return {column.name: list(cells) for column, cells in zip(columns, zip(*data, strict=True), strict=False)}
    return None


def _tensor(column: TensorColumn, values: Any, bytes_in_json: str, *, only_json: bool) -> Json:
    if column.is_tensor:
        return {"name": column.name, "shape": _shape(values), "datatype": column.datatype, "data": values}
    tensor = {"name": column.name, "shape": [len(values), 1], "datatype": column.datatype, "data": values}
    is_held = None not in values or column.datatype in _FLOATS
    if column.content_type == JSON or only_json or not is_held:
        data = [json.dumps(value) for value in values]
        return {**tensor, "datatype": BYTES, "data": data, "parameters": {CONTENT_TYPE: JSON}}
    content_type = column.content_type or bytes_in_json
    return (
        {**tensor, "parameters": {CONTENT_TYPE: content_type}} if column.datatype == BYTES and content_type else tensor
    )


def _shape(values: Any) -> list[int]:
    shape = []
    while isinstance(values, list):
        shape.append(len(values))
        values = values[0] if values else None
    return shape
