"""One model for each kind of signature that MLflow has; all of them return a description of their input.

The models never raise and always return JSON, so every refusal comes from MLflow.
"""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pydantic
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def tell(value: Any) -> Any:
    """Returns type, dtype, shape and every cell of a model's input as a JSON value."""
    if isinstance(value, pd.DataFrame):
        return {
            "type": "DataFrame",
            "columns": [[repr(name), str(value.dtypes.iloc[index])] for index, name in enumerate(value.columns)],
            "index": [repr(label) for label in value.index],
            "cells": [[tell(cell) for cell in value.iloc[:, index].tolist()] for index in range(value.shape[1])],
        }
    if isinstance(value, np.ndarray):
        cells = [tell(cell) for cell in value.ravel().tolist()]
        return {"type": "ndarray", "dtype": str(value.dtype), "shape": list(value.shape), "cells": cells}
    if isinstance(value, dict):
        return {"type": "dict", "items": [[repr(key), tell(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"type": type(value).__name__, "items": [tell(item) for item in value]}
    if isinstance(value, pydantic.BaseModel):
        return {"type": type(value).__name__, "fields": tell(value.model_dump())}
    return f"{type(value).__name__} {value!r}"


class Echo(PythonModel):
    """Returns a description of its input."""

    def predict(self, context, model_input, params=None):
        return {"input": tell(model_input), "params": tell(params)}


class EchoWithoutParams(PythonModel):
    """Returns a description of its input, and takes no params."""

    def predict(self, context, model_input):
        return tell(model_input)


class EchoRows(PythonModel):
    """Returns a description of its complete input for each row."""

    def predict(self, context, model_input, params=None):
        parts = list(model_input.values()) if isinstance(model_input, dict) else [model_input]
        return [{"input": tell(model_input), "params": tell(params)}] * len(parts[0])


class Address(pydantic.BaseModel):
    street: str
    number: int | None = None


class Person(pydantic.BaseModel):
    name: str
    age: int
    score: float = 0.5
    addresses: list[Address] = []


class HintStr(PythonModel):
    def predict(self, model_input: list[str], params=None):
        return [tell(item) for item in model_input]


class HintInt(PythonModel):
    def predict(self, model_input: list[int], params=None):
        return [tell(item) for item in model_input]


class HintFloat(PythonModel):
    def predict(self, model_input: list[float], params=None):
        return [tell(item) for item in model_input]


class HintBytes(PythonModel):
    def predict(self, model_input: list[bytes], params=None):
        return [tell(item) for item in model_input]


class HintDatetime(PythonModel):
    def predict(self, model_input: list[datetime.datetime], params=None):
        return [tell(item) for item in model_input]


class HintDict(PythonModel):
    def predict(self, model_input: list[dict[str, int]], params=None):
        return [tell(item) for item in model_input]


class HintAny(PythonModel):
    def predict(self, model_input: list[Any], params=None):
        return [tell(item) for item in model_input]


class HintListOfBytes(PythonModel):
    def predict(self, model_input: list[list[bytes]], params=None):
        return [tell(item) for item in model_input]


class Event(pydantic.BaseModel):
    at: datetime.datetime
    data: bytes | None = None


class Order(pydantic.BaseModel):
    size: str = pydantic.Field(pattern="^(small|large)$")
    count: int = pydantic.Field(default=1, ge=1, le=9)
    buyers: dict[str, Person] = {}
    secret: str | None = None

    @pydantic.field_validator("secret")
    @classmethod
    def _must_be_short(cls, value: str | None) -> str | None:
        if value is not None and len(value) > 3:
            raise ValueError(f"{value} is too long")
        return value


class HintEvent(PythonModel):
    def predict(self, model_input: list[Event], params=None):
        return [tell(item) for item in model_input]


class HintOrder(PythonModel):
    def predict(self, model_input: list[Order], params=None):
        return [tell(item) for item in model_input]


class HintListOfPeople(PythonModel):
    def predict(self, model_input: list[list[Person]], params=None):
        return [tell(item) for item in model_input]


class HintDictOfTimes(PythonModel):
    def predict(self, model_input: list[dict[str, datetime.datetime]], params=None):
        return [tell(item) for item in model_input]


class HintPerson(PythonModel):
    def predict(self, model_input: list[Person], params=None):
        return [tell(item) for item in model_input]


COLUMNS = [
    ("boolean", DataType.boolean),
    ("integer", DataType.integer),
    ("long", DataType.long),
    ("float", DataType.float),
    ("double", DataType.double),
    ("string", DataType.string),
    ("binary", DataType.binary),
    ("datetime", DataType.datetime),
]
PARAMS = ParamSchema(
    [
        ParamSpec("temperature", DataType.double, 0.5),
        ParamSpec("top_k", DataType.integer, 3),
        ParamSpec("big", DataType.long, 1),
        ParamSpec("flag", DataType.boolean, False),
        ParamSpec("label", DataType.string, "x"),
        ParamSpec("since", DataType.datetime, datetime.datetime(2020, 1, 1)),
        ParamSpec("stops", DataType.string, ["a"], (-1,)),
        ParamSpec("weights", DataType.double, [0.5, 1.0], (-1,)),
    ]
)
PERSON = Object([Property("name", DataType.string), Property("age", DataType.long, required=False)])

COMPONENT = Object(
    [
        Property("name", DataType.string),
        Property("weight", DataType.double),
        Property("tags", Array(DataType.string), required=False),
        Property("maker", Object([Property("country code", DataType.string)]), required=False),
        Property("sizes", Map(Array(DataType.double)), required=False),
    ]
)


def _columns(*specs: ColSpec) -> ModelSignature:
    return ModelSignature(inputs=Schema(list(specs)))


def _signatures() -> dict[str, ModelSignature | None]:
    every = [ColSpec(data_type, name) for name, data_type in COLUMNS]
    return {
        "no_signature": None,
        "numbers": _columns(ColSpec(DataType.long, "a"), ColSpec(DataType.double, "b")),
        "every_column": _columns(*every),
        "optional": _columns(
            ColSpec(DataType.double, "need"),
            *(ColSpec(data_type, f"may_{name}", required=False) for name, data_type in COLUMNS),
        ),
        "one_string": _columns(ColSpec(DataType.string, "q")),
        "one_boolean": _columns(ColSpec(DataType.boolean, "flag")),
        "unnamed": _columns(ColSpec(DataType.long), ColSpec(DataType.double)),
        "unnamed_one": _columns(ColSpec(DataType.double)),
        "structures": _columns(
            ColSpec(Array(DataType.double), "numbers"),
            ColSpec(PERSON, "person"),
            ColSpec(Map(DataType.long), "counts"),
            ColSpec(AnyType(), "anything", required=False),
        ),
        "nested": _columns(
            ColSpec(Array(Array(DataType.string)), "words"), ColSpec(Array(PERSON), "people", required=False)
        ),
        "tensor": ModelSignature(inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 2))])),
        "tensor_ints": ModelSignature(inputs=Schema([TensorSpec(np.dtype("uint8"), (-1,))])),
        "tensors": ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("float64"), (-1, 2), "x"), TensorSpec(np.dtype("int64"), (-1,), "mask")])
        ),
        "tensor_named": ModelSignature(inputs=Schema([TensorSpec(np.dtype("object"), (-1,), "text")])),
        "tensor_bytes": ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("S"), (-1,), "one"), TensorSpec(np.dtype("S"), (-1, 2), "two")])
        ),
        "params": ModelSignature(inputs=Schema([ColSpec(DataType.double, "a")]), params=PARAMS),
        "params_only": ModelSignature(params=PARAMS),
        "chat": ModelSignature(
            inputs=Schema(
                [
                    ColSpec(
                        Array(Object([Property("role", DataType.string), Property("content", DataType.string)])),
                        "messages",
                    ),
                    ColSpec(DataType.double, "temperature", required=False),
                ]
            ),
            params=ParamSchema([ParamSpec("top_k", DataType.integer, 3)]),
        ),
        "prompt": _columns(ColSpec(DataType.string, "prompt"), ColSpec(DataType.double, "temperature", required=False)),
    }


HINTED: dict[str, type[PythonModel]] = {
    "hint_str": HintStr,
    "hint_int": HintInt,
    "hint_float": HintFloat,
    "hint_bytes": HintBytes,
    "hint_datetime": HintDatetime,
    "hint_dict": HintDict,
    "hint_person": HintPerson,
}

NAMES = [*_signatures(), "without_params", *HINTED]


def _more_signatures() -> dict[str, ModelSignature | None]:
    """Makes further signatures, for models that are called with typed messages only."""
    picture = Object([Property("data", DataType.binary)])
    return {
        "numbered": _columns(ColSpec(DataType.long, cast("str", 0)), ColSpec(DataType.double, cast("str", 1))),
        "unnamed_binary": _columns(ColSpec(DataType.binary)),
        "unnamed_datetime": _columns(ColSpec(DataType.datetime)),
        "unnamed_any": _columns(ColSpec(AnyType())),
        "unnamed_list": _columns(ColSpec(Array(DataType.long))),
        "named_list": _columns(ColSpec(Array(DataType.double), "vector")),
        "unnamed_object": _columns(ColSpec(PERSON)),
        "unnamed_map": _columns(ColSpec(Map(DataType.long))),
        "part": _columns(ColSpec(COMPONENT, "part"), ColSpec(Array(COMPONENT), "spare parts", required=False)),
        "within": _columns(
            *(
                ColSpec(
                    Object([Property("value", data_type), Property("maybe", data_type, required=False)]),
                    name,
                    required=False,
                )
                for name, data_type in COLUMNS
            )
        ),
        "param_object": ModelSignature(
            inputs=Schema([ColSpec(DataType.double, "a")]),
            params=ParamSchema([ParamSpec("options", COMPONENT, {"name": "x", "weight": 1.5}), *PARAMS.params]),
        ),
        "two_unnamed": _columns(ColSpec(DataType.long), ColSpec(DataType.datetime)),
        "nested_bytes": _columns(
            ColSpec(Array(DataType.binary), "list", required=False),
            ColSpec(Array(Array(DataType.binary)), "lists", required=False),
            ColSpec(picture, "object", required=False),
            ColSpec(Map(Array(picture)), "map", required=False),
        ),
    }


_MORE_HINTED: dict[str, type[PythonModel]] = {
    "hint_any": HintAny,
    "hint_list_of_bytes": HintListOfBytes,
    "hint_event": HintEvent,
    "hint_order": HintOrder,
    "hint_list_of_people": HintListOfPeople,
    "hint_dict_of_times": HintDictOfTimes,
}


def save(name: str, path: Path) -> None:
    """Saves the model of this name as an MLflow model; with the prefix `rows_` one that answers row by row."""
    signatures, hinted = _signatures() | _more_signatures(), HINTED | _MORE_HINTED
    model: PythonModel = EchoRows() if name.startswith("rows_") else Echo()
    name = name.removeprefix("rows_")
    if name == "without_params":
        model, signatures = EchoWithoutParams(), {name: signatures["params"]}
    elif name in hinted:
        model = hinted[name]()
    signature = signatures.get(name)
    kwargs: dict[str, Any] = {"signature": signature} if signature is not None else {}
    mlflow.pyfunc.save_model(path, python_model=model, pip_requirements=["mlflow"], **kwargs)


Saver = Callable[[str, Path], None]
