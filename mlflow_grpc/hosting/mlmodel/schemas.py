"""The schemas of MLModel packages: one record in, checked; one record out, as plain JSON values.

Rule of this module: what a schema says is said by its own library (pydantic 1 or 2, schema), in its own words.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pydantic
import pydantic.v1
import pydantic_core

from mlflow_grpc.errors import FieldViolation, ModelFailed, StartError
from mlflow_grpc.hosting.aliases import aliases
from mlflow_grpc.hosting.mlmodel.json_values import (
    InDetail,
    Place,
    WithDefaults,
    encoded,
    has_naive,
    holds_bytes,
    in_full,
    without_zones,
)


class RecordRefused(Exception):
    """A record does not fit the schema."""

    def __init__(self, message: str, violations: tuple[FieldViolation, ...]) -> None:
        super().__init__(message)
        self.violations = violations

    def words(self, place: str = "") -> dict[str, Any]:
        """The arguments for the error that the caller gets; `place` is which record it was, if there are several."""
        violations = tuple(
            FieldViolation(f"{place}.{violation.field}".strip("."), violation.description)
            for violation in self.violations
        )
        return {
            "message": f"The record{f' {place}' if place else ''} does not fit the model's schema: {self}",
            "reason": "INVALID_PARAMETER_VALUE",
            "error_class": "SCHEMA_ENFORCEMENT_FAILED",
            "violations": violations,
        }


class RecordSchema(Protocol):
    """What a model takes and gives."""

    @property
    def fields(self) -> frozenset[str]:
        """The names that a record may have at its top."""
        ...

    @property
    def ignores_others(self) -> bool:
        """Whether a record may have others too, which the model is not given."""
        ...

    def of_message(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record of a message, whose points in time end with Z, as `parse` takes it."""
        ...

    def parse(self, record: dict[str, Any]) -> Any:
        """What the model's `predict` is to be given for a JSON object; bytes in it are what the model gets.

        Raises:
            RecordRefused: It does not fit.
            ModelFailed: The schema raised what none of its library's refusals is.

        """
        ...

    def dump(self, output: Any) -> Any:
        """What `predict` gave, as JSON values."""
        ...

    def values(self, output: Any) -> Any:
        """The same with bytes as bytes, and Python's values where JSON says the same of them and they say more."""
        ...

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The JSON Schemas of input and output."""
        ...


def schema_of(inputs: Any, outputs: Any) -> RecordSchema:
    """The schema that a model's `input_schema` and `output_schema` are.

    Raises:
        StartError: They are of no library that is known.

    """
    if isinstance(inputs, type):
        if issubclass(inputs, pydantic.BaseModel):
            return _Pydantic(inputs, outputs)
        if issubclass(inputs, pydantic.v1.BaseModel):
            return _Pydantic1(inputs, outputs)
    if callable(getattr(inputs, "validate", None)) and type(inputs).__module__.split(".")[0] == "schema":
        return _Schema(inputs, outputs)
    raise StartError(f"the model's input_schema is neither a pydantic class nor a Schema object, but {inputs!r:.200}")


class _Outputs(ABC):
    """What all libraries have in common: how outputs are written."""

    def of_message(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record of a message as it is: JSON Schema's date-time has a zone."""
        return record

    def dump(self, output: Any) -> Any:
        """An output as JSON values."""
        return _plain(output)

    def values(self, output: Any) -> Any:
        """The same with bytes as bytes."""
        python = _values(output)
        try:
            plain = self.dump(output)
        except (pydantic_core.PydanticSerializationError, UnicodeDecodeError):
            if not holds_bytes(python):
                raise
            plain = python  # JSON has no text for bytes that are not UTF-8; a message has them.
        return in_full(plain, python, self._place_of_outputs)

    @abstractmethod
    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The JSON Schemas of inputs and outputs."""

    @cached_property
    def _place_of_outputs(self) -> Place:
        return Place(self.json_schemas()[1])


class _Pydantic(_Outputs):
    """Classes of pydantic 2."""

    def __init__(self, inputs: type[pydantic.BaseModel], outputs: Any) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self.fields = frozenset(
            name for key, field in inputs.model_fields.items() for name in (key, *aliases(field.validation_alias))
        )
        self.ignores_others = inputs.model_config.get("extra", "ignore") == "ignore"

    def parse(self, record: dict[str, Any]) -> pydantic.BaseModel:
        """Validates a record in JSON mode, where texts stand for dates and enums also in strict models."""
        try:
            said = encoded(record, self._place_of_inputs, in_json=True) if holds_bytes(record) else record
        except UnicodeDecodeError:
            said = encoded(record, self._place_of_inputs, in_json=False)
            with _refusals_told():
                return self._inputs.model_validate(said)
        text = json.dumps(said)
        with _refusals_told():
            return self._inputs.model_validate_json(text)

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `model_json_schema` makes them, with a keyword at defaults that they do not say."""
        return self._inputs.model_json_schema(schema_generator=WithDefaults), _json_schema(self._outputs)

    @cached_property
    def _place_of_inputs(self) -> Place:
        return Place(self._in_detail)

    @cached_property
    def _in_detail(self) -> dict[str, Any]:
        return self._inputs.model_json_schema(schema_generator=InDetail)

    def of_message(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record of a message without a zone in the points in time that are naive."""
        if not self._has_naive:
            return record
        found: dict[str, Any] = without_zones(record, self._place_of_inputs)
        return found

    @cached_property
    def _has_naive(self) -> bool:
        return has_naive(self._in_detail)


class _Pydantic1(_Outputs):
    """Classes of pydantic 1, which version 2 brings along as `pydantic.v1`."""

    def __init__(self, inputs: type[pydantic.v1.BaseModel], outputs: Any) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self.fields = frozenset(name for key, field in inputs.__fields__.items() for name in (key, field.alias or key))
        self.ignores_others = inputs.__config__.extra is pydantic.v1.Extra.ignore

    def parse(self, record: dict[str, Any]) -> pydantic.v1.BaseModel:
        """Validates a record."""
        with _refusals_told():
            return self._inputs.parse_obj(record)

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `schema` makes them."""
        return self._inputs.schema(), _json_schema(self._outputs)


class _Schema(_Outputs):
    """Objects of the package `schema`."""

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self._inputs = inputs
        self._outputs = outputs
        keys = inputs.schema if isinstance(inputs.schema, dict) else {}
        self.fields = frozenset(str(getattr(key, "schema", key)) for key in keys)
        self.ignores_others = False  # It refuses them, unless told to; the model gets the record as it came.

    def parse(self, record: dict[str, Any]) -> dict[str, Any]:
        """Checks a record; the model, whose `predict` checks it again, gets it as it came."""
        try:
            self._inputs.validate(record)
        except Exception as error:  # noqa: BLE001 - schemas call functions of the model
            raise RecordRefused(" ".join(str(error).split()), violations_behind(error)) from None
        return record

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `json_schema` makes them."""
        return self._inputs.json_schema("input"), self._outputs.json_schema("output")


@contextmanager
def _refusals_told() -> Iterator[None]:
    """Turns a refusal of pydantic's into RecordRefused, and whatever else a validator raises into ModelFailed."""
    try:
        yield
    except pydantic.ValidationError as error:
        raise _refused(error.errors(include_url=False, include_input=False, include_context=False)) from None
    except pydantic.v1.ValidationError as error:
        raise _refused(error.errors()) from None
    except BaseException as error:
        raise ModelFailed(
            "The model's schema raised an exception. It is in the server's log, under the request id of this answer.",
            error_class=type(error).__name__,
        ) from error


def violations_behind(error: BaseException | None) -> tuple[FieldViolation, ...]:
    """The fields at fault, as far as the library's exception behind a model's own tells them."""
    while error is not None:
        if isinstance(error, pydantic.ValidationError):
            return _refused(error.errors(include_url=False, include_input=False, include_context=False)).violations
        if isinstance(error, pydantic.v1.ValidationError):
            return _refused(error.errors()).violations
        if isinstance(autos := getattr(error, "autos", None), list):
            return _of_schema_error([str(each) for each in autos if each])
        error = error.__cause__ or error.__context__
    return ()


_KEYS = re.compile(r"^(?:Key|Wrong key|Missing keys?:?) (.*?)(?: error:| in .*)?$", re.DOTALL)


def _of_schema_error(messages: list[str]) -> tuple[FieldViolation, ...]:
    """The package schema tells the way to the fault in messages, from the outside to the inside."""
    path: list[str] = []
    missing: list[str] = []
    for message in messages:
        if (found := _KEYS.match(message)) is None:
            continue
        names = re.findall(r"'((?:[^'\\]|\\.)*)'", found[1])
        if message.startswith("Missing"):
            missing = names
        else:
            path += names[:1]
    fields = [".".join([*path, name]) for name in missing] or ([".".join(path)] if path else [])
    return tuple(FieldViolation(field, " ".join(messages[-1].split())) for field in fields)


def _refused(problems: Any) -> RecordRefused:
    violations = tuple(FieldViolation(_path(problem["loc"]), str(problem["msg"])) for problem in problems)
    listed = "; ".join(f"{each.field}: {each.description}" if each.field else each.description for each in violations)
    return RecordRefused(listed, violations)


def _path(loc: tuple[Any, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if part != "__root__")
    return "".join(parts).lstrip(".")


def _plain(output: Any) -> Any:
    if isinstance(output, pydantic.v1.BaseModel):
        return json.loads(output.json(by_alias=True))
    return pydantic_core.to_jsonable_python(output, by_alias=True, fallback=_of_numpy)


def _values(output: Any) -> Any:
    if isinstance(output, pydantic.BaseModel):
        return output.model_dump(by_alias=True)
    if not isinstance(output, pydantic.v1.BaseModel):
        return output
    values = output.dict(by_alias=True)
    return values.get("__root__") if output.__custom_root_type__ else values


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, pydantic.v1.BaseModel):
        return json.loads(value.json(by_alias=True))
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")


def _json_schema(outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, type) and issubclass(outputs, pydantic.BaseModel):
        return outputs.model_json_schema(mode="serialization")
    if isinstance(outputs, type) and issubclass(outputs, pydantic.v1.BaseModel):
        return outputs.schema()
    return {}
