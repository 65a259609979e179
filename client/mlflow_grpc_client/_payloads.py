"""Conversion of Python objects into JSON payloads, and of answers into Python objects.

Rule of this module: pandas and numpy are never imported, because their objects come only from programs that have
imported them.

Data that MLflow's own client can send (`mlflow.utils.proto_json_utils.dump_input_data`) is sent with the same values.
Data that it cannot send (bytes, numpy scalars, pd.NA in a list), or that the server would refuse or misread (columns
and arrays of datetime64), is sent in a form that the server reads. Data without such a form is a TypeError.
"""

import base64
import datetime as dt
import json
import sys
from typing import Any

_LLM_KEYS = frozenset({"messages", "prompt", "input"})
_KEYS = frozenset({"dataframe_split", "dataframe_records", "inputs", "instances"}) | _LLM_KEYS


def to_json(data: Any, params: dict[str, Any] | None = None) -> str:
    """The payload for `data`.

    Args:
        data: A JSON text, which is sent unchanged; a dict in one of MLflow's formats; a pandas DataFrame (sent as
            dataframe_split) or Series (as a single column, as in MLflow's pyfunc); a list, a numpy array or a dict of
            arrays (sent as inputs).
        params: Params of the model, added as `params`, or to an LLM payload as keys.

    Raises:
        TypeError: A value has no JSON form, or params are given twice or with a text.

    """
    if isinstance(data, str):
        if params is not None:
            raise TypeError("params cannot be added to a text: put them into it")
        return data
    payload = _document(data)
    if params is not None:
        added = params if is_bare(payload) else {"params": params}
        if duplicates := sorted(map(str, payload.keys() & added.keys())):
            raise TypeError(f"{', '.join(duplicates)}: given both in the payload and in params")
        payload = {**payload, **added}
    return json.dumps(payload, default=jsonable)


def as_text(payload: str | bytes) -> str:
    """A payload as text; bytes are UTF-8."""
    if isinstance(payload, str):
        return payload
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise TypeError(f"cannot send {type_label(payload)} as text: give a str or bytes")
    try:
        return bytes(payload).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the bytes of the payload are not UTF-8 (at byte {error.start})") from None


def from_json(text: str, *, bare: bool = False) -> Any:
    """The value of `predictions` in an answer; the whole answer if it has other keys or `bare` is set."""
    answer = json.loads(text)
    if not bare and isinstance(answer, dict) and answer.keys() == {"predictions"}:
        return answer["predictions"]
    return answer


def is_bare(data: Any) -> bool:
    """Returns True if a payload is one of MLflow's unified LLM payloads, whose answers have no `predictions` key."""
    if isinstance(data, str):
        # A text may be large, so it is parsed only if it may be such a payload.
        if not any(f'"{key}"' in data for key in _LLM_KEYS):
            return False
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            return False
    return isinstance(data, dict) and not _LLM_KEYS.isdisjoint(data)


def library(module: str, name: str) -> Any:
    """A class or object of a library that the program has imported; else (), which has no instances.

    An import that another thread has not finished counts as none.
    """
    return getattr(sys.modules.get(module), name, ())


def _document(data: Any) -> dict[str, Any]:
    array = library("numpy", "ndarray")
    if isinstance(data, library("pandas", "Series")):
        data = data.to_frame()
    if isinstance(data, library("pandas", "DataFrame")):
        return {"dataframe_split": _split(data)}
    if isinstance(data, dict):
        arrays = bool(data) and all(isinstance(value, array) for value in data.values())
        return {"inputs": data} if arrays and _KEYS.isdisjoint(data) else data
    if isinstance(data, (list, tuple, array)):
        return {"inputs": data}
    raise TypeError(f"cannot send {type_label(data)}: give a dict, a DataFrame, an array, a list or a JSON text")


def _split(frame: Any) -> dict[str, Any]:
    if not frame.columns.is_unique:
        label = frame.columns[frame.columns.duplicated()][0]
        raise TypeError(f"the DataFrame has several columns of the name {label!r}")
    split: dict[str, Any] = _with_dates_as_text(frame).to_dict(orient="split")
    if isinstance(frame.index, library("pandas", "RangeIndex")) and frame.index.start == 0 and frame.index.step == 1:
        del split["index"]  # The server's default.
    for key in ("columns", "index"):
        if any(isinstance(label, tuple) for label in split.get(key, ())):
            raise TypeError(
                f"the DataFrame's {key} has tuples for labels (a MultiIndex), which MLflow would read as "
                "something else: flatten it, for an index with reset_index()"
            )
    return split


def _with_dates_as_text(frame: Any) -> Any:
    # isoformat() omits a fraction of zero, and MLflow's server (pandas.to_datetime) expects all values of a column in
    # the form of the first: a whole second among fractions would make it refuse the column.
    indexes = [index for index, dtype in enumerate(frame.dtypes) if dtype.kind == "M"]
    if indexes:
        frame = frame.copy(deep=False)
    for index in indexes:
        times = frame.iloc[:, index].tolist()
        units = ("nanosecond", "microsecond")
        # NaT has NaN for each unit.
        precision = next((f"{unit}s" for unit in units if any(getattr(time, unit) > 0 for time in times)), "seconds")
        frame.isetitem(index, [time.isoformat(timespec=precision) for time in times])
    return frame


def jsonable(value: Any) -> Any:
    """The JSON form of a value that JSON does not know; see the rules of this module."""
    if value is library("pandas", "NA"):
        return None
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()  # MLflow decodes it in DataFrames' columns of type binary.
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (library("numpy", "ndarray"), library("numpy", "generic"))):
        return _array_values(value)
    if isinstance(value, (library("pandas", "Series"), library("pandas", "Index"))):
        return value.tolist()
    hint = ": send a number, such as its total_seconds()" if isinstance(value, dt.timedelta) else ""
    raise TypeError(f"{type_label(value)} has no JSON form{hint}")


def _array_values(array: Any) -> Any:
    """The values of a numpy array or scalar."""
    kind = array.dtype.kind
    if kind == "M":
        return array.astype(str).tolist()  # tolist() makes integers of nanoseconds.
    if array.dtype.char == "g":
        array = array.astype(float)
    if kind not in "biufUTO":
        hint = "; make it a DataFrame or a list, MLflow has no bytes in arrays" if kind == "S" else ""
        raise TypeError(f"numpy values of type {array.dtype} have no JSON form{hint}")
    return array.tolist()


def type_label(value: Any) -> str:
    """The type of a value, for people."""
    return f"{type(value).__module__.removeprefix('builtins')}.{type(value).__qualname__}".removeprefix(".")
