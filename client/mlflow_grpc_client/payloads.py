"""Python objects to JSON payloads, and answers to Python objects.

Rule of this module: pandas and numpy are used where the caller has them, and never imported: an object of
theirs can only come from a program that has imported them already.
"""

import base64
import datetime
import json
import sys
from collections.abc import Callable
from typing import Any

_LLM_KEYS = ("messages", "prompt", "input")


def to_json(data: Any, params: dict[str, Any] | None = None) -> str:
    """The payload for `data`.

    Args:
        data: A JSON text, which is sent as it is; a dict in one of MLflow's formats; a pandas DataFrame
            (sent as dataframe_split) or Series; a numpy array, a list or a dict of arrays (sent as inputs).
        params: Added to the payload as `params`.

    Raises:
        TypeError: Something in it has no JSON form, or params are given beside a text.

    """
    if isinstance(data, str):
        if params is not None:
            raise TypeError("params cannot be added to a text: put them into it")
        return data
    payload = _document(data)
    if params is not None:
        payload = {**payload, "params": params}
    return json.dumps(payload, default=_jsonable)


def from_json(text: str, *, bare: bool = False) -> Any:
    """What stands under `predictions` in an answer, or all of it if nothing else does or `bare` is set."""
    answer = json.loads(text)
    if not bare and isinstance(answer, dict) and answer.keys() == {"predictions"}:
        return answer["predictions"]
    return answer


def is_bare(data: Any) -> bool:
    """Whether the answer comes without `predictions` around it: MLflow's unified LLM payloads."""
    return isinstance(data, dict) and any(key in data for key in _LLM_KEYS)


def _document(data: Any) -> dict[str, Any]:
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas and isinstance(data, pandas.Series):
        data = data.to_frame()
    if pandas and isinstance(data, pandas.DataFrame):
        split = data.to_dict(orient="split")
        if isinstance(data.index, pandas.RangeIndex) and data.index.start == 0 and data.index.step == 1:
            del split["index"]
        return {"dataframe_split": split}
    if numpy and isinstance(data, numpy.ndarray):
        return {"inputs": data}
    if isinstance(data, dict):
        arrays = bool(numpy) and bool(data) and all(isinstance(value, numpy.ndarray) for value in data.values())
        return {"inputs": data} if arrays else data
    if isinstance(data, list):
        return {"inputs": data}
    raise TypeError(f"cannot send {type(data).__name__}: give a JSON text, a dict, a list, a DataFrame or an array")


def _jsonable(value: Any) -> Any:
    for module, convert in _CONVERTERS:
        if (library := sys.modules.get(module)) is not None:
            converted = convert(library, value)
            if converted is not value:
                return converted
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        # MLflow decodes base64 in the columns of type binary of a DataFrame.
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _numpy_value(numpy: Any, value: Any) -> Any:
    if isinstance(value, numpy.datetime64):
        return None if numpy.isnat(value) else str(value)
    if isinstance(value, numpy.ndarray):
        if value.dtype.kind == "S":
            raise TypeError("bytes cannot be sent as an array (MLflow does not decode them): send a DataFrame")
        return value.astype(str).tolist() if value.dtype.kind == "M" else value.tolist()
    return value.item() if isinstance(value, numpy.generic) else value


def _pandas_value(pandas: Any, value: Any) -> Any:
    return None if value is pandas.NaT or value is pandas.NA else value


_CONVERTERS: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (("pandas", _pandas_value), ("numpy", _numpy_value))
