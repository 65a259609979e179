"""Model inputs as text, for recorded calls without one, and back from text to a table.

Rule of this module: the text is a payload that `mlflow models serve` takes, so that the call can be made again.
MLflow's functions read it and convert values that have no JSON form.
"""

import json
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.codec import ModelInput, RawPayload

JSON, CSV, TEXT = "application/json", "text/csv", "text/plain"

TEXT_TYPES = (JSON, CSV, TEXT)
"""Media types of payloads that are recorded as they are."""


def payload_as_text(payload: RawPayload, content_type: str | None, default: str) -> tuple[str, str] | None:
    """Returns a payload as text, and its content type; None if it has no text, such as Parquet.

    Args:
        payload: What the caller sent.
        content_type: Its content type; None for the default.
        default: Media type of payloads without a content type, with or without parameters.

    """
    content_type = content_type or default
    if content_type.partition(";")[0].strip().lower() not in TEXT_TYPES:
        return None
    try:
        text = payload if isinstance(payload, str) else payload.decode()
    except UnicodeDecodeError:
        return None
    return text, content_type


def input_as_text(model_input: ModelInput) -> str:
    """Returns model input as JSON in one of MLflow's formats.

    Raises:
        TypeError: A value has no JSON form.
        ValueError: Values refer to themselves.

    """
    data = model_input.data
    document: dict[str, Any]
    if isinstance(data, pd.DataFrame):
        split = data.to_dict(orient="split")
        document = {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}
    else:
        document = {"inputs": data}
    if model_input.params:
        document["params"] = model_input.params
    return json.dumps(document, default=_json_form)


def _json_form(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return internals.json_default(value)


def table_of(text: str, content_type: str) -> pd.DataFrame | None:
    """Returns the table in a recorded input; None if the input is no table, such as a chat.

    Raises:
        ValueError: The text does not parse.

    """
    if content_type.startswith(CSV):
        return pd.read_csv(StringIO(text))
    if not content_type.startswith(JSON):
        return None
    document = json.loads(text)
    if not isinstance(document, dict) or len(document.keys() - {"params"}) != 1:
        return None
    document.pop("params", None)
    if not document.keys() <= {"dataframe_split", "dataframe_records", "instances", "inputs"}:
        return None
    return _as_table(internals.parse_payload(document))


def _as_table(data: Any) -> pd.DataFrame | None:
    """Returns parsed data as a table; None if it has another form."""
    is_table = (
        isinstance(data, pd.DataFrame)
        or (isinstance(data, np.ndarray) and data.ndim in (1, 2))
        or (isinstance(data, dict) and all(np.ndim(column) == 1 for column in data.values()))
        or (isinstance(data, list) and all(isinstance(record, dict) for record in data))
    )
    return pd.DataFrame(data) if is_table else None
