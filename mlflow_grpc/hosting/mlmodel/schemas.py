"""Schemas of MLModel packages: they validate input records and convert outputs to JSON values.

Rule of this module: the schema's own library (pydantic 1 or 2, schema) validates and writes its own messages.

It has more than 300 lines, because it holds the adapters of all three libraries, which share their error handling.
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
    DetailedSchema,
    SchemaNode,
    SchemaWithDefaults,
    contains_bytes,
    encode_bytes,
    has_naive_timestamps,
    remove_forbidden_timezones,
    restore_python_values,
)


class RecordRefused(Exception):
    """A record does not fit the schema."""

    def __init__(self, message: str, violations: tuple[FieldViolation, ...]) -> None:
        super().__init__(message)
        self.violations = violations

    def error_arguments(self, record_path: str = "") -> dict[str, Any]:
        """Returns the arguments of the InvalidPayload for the caller.

        Args:
            record_path: Path of the record, such as `[2]`. Empty if the request has only one record.

        """
        violations = tuple(
            FieldViolation(f"{record_path}.{violation.field}".strip("."), violation.description)
            for violation in self.violations
        )
        return {
            "message": f"The record{f' {record_path}' if record_path else ''} does not fit the model's schema: {self}",
            "reason": "INVALID_PARAMETER_VALUE",
            "error_class": "SCHEMA_ENFORCEMENT_FAILED",
            "violations": violations,
        }


class RecordSchema(Protocol):
    """Interface to the input and output schema of a model."""

    @property
    def fields(self) -> frozenset[str]:
        """Names of the top-level fields of a record, aliases included."""
        ...

    @property
    def ignores_others(self) -> bool:
        """True if a record may have unknown top-level fields, which do not reach the model."""
        ...

    def of_message(self, record: dict[str, Any]) -> dict[str, Any]:
        """Converts a record from a typed message, whose timestamps end with Z, for `parse`."""
        ...

    def parse(self, record: dict[str, Any]) -> Any:
        """Validates a JSON object and returns the argument for the model's `predict`; bytes in it stay bytes.

        Raises:
            RecordRefused: The object does not fit the schema.
            ModelFailed: The schema raised an exception other than its library's validation error.

        """
        ...

    def dump(self, output: Any) -> Any:
        """Converts an output of `predict` to JSON values."""
        ...

    def values(self, output: Any) -> Any:
        """Converts an output of `predict` to values for a typed message, with bytes and timestamps as Python values."""
        ...

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the JSON Schemas of the input and the output."""
        ...


def schema_of(inputs: Any, outputs: Any) -> RecordSchema:
    """Wraps a model's `input_schema` and `output_schema`.

    Raises:
        StartError: They come from an unsupported library.

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
    """Conversion of outputs, which all three libraries share."""

    def of_message(self, record: dict[str, Any]) -> dict[str, Any]:
        """Returns the record unchanged, because a date-time of JSON Schema has a timezone."""
        return record

    def dump(self, output: Any) -> Any:
        """Converts an output to JSON values."""
        return _to_json_values(output)

    def values(self, output: Any) -> Any:
        """Converts an output to values for a typed message."""
        python_value = _to_python_values(output)
        try:
            json_value = self.dump(output)
        except (pydantic_core.PydanticSerializationError, UnicodeDecodeError):
            if not contains_bytes(python_value):
                raise
            json_value = python_value  # Bytes that are not UTF-8 have no JSON string, but a message can hold them.
        return restore_python_values(json_value, python_value, self._output_node)

    @abstractmethod
    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the JSON Schemas of the input and the output."""

    @cached_property
    def _output_node(self) -> SchemaNode:
        return SchemaNode(self.json_schemas()[1])


class _Pydantic(_Outputs):
    """Schemas that are pydantic 2 classes."""

    def __init__(self, inputs: type[pydantic.BaseModel], outputs: Any) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self.fields = frozenset(
            name for key, field in inputs.model_fields.items() for name in (key, *aliases(field.validation_alias))
        )
        self.ignores_others = inputs.model_config.get("extra", "ignore") == "ignore"

    def parse(self, record: dict[str, Any]) -> pydantic.BaseModel:
        """Validates a record in JSON mode, because strict models take strings for dates and enums only there."""
        try:
            payload = encode_bytes(record, self._input_node, as_text=True) if contains_bytes(record) else record
        except UnicodeDecodeError:
            payload = encode_bytes(record, self._input_node, as_text=False)
            with _translate_validation_errors():
                return self._inputs.model_validate(payload)
        text = json.dumps(payload)
        with _translate_validation_errors():
            return self._inputs.model_validate_json(text)

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the schemas of `model_json_schema`, with a keyword for each default that JSON Schema cannot hold."""
        return self._inputs.model_json_schema(schema_generator=SchemaWithDefaults), _output_json_schema(self._outputs)

    @cached_property
    def _input_node(self) -> SchemaNode:
        return SchemaNode(self._detailed_input_schema)

    @cached_property
    def _detailed_input_schema(self) -> dict[str, Any]:
        return self._inputs.model_json_schema(schema_generator=DetailedSchema)

    def of_message(self, record: dict[str, Any]) -> dict[str, Any]:
        """Removes the timezone of timestamps that the schema wants naive."""
        if not self._has_naive_timestamps:
            return record
        converted: dict[str, Any] = remove_forbidden_timezones(record, self._input_node)
        return converted

    @cached_property
    def _has_naive_timestamps(self) -> bool:
        return has_naive_timestamps(self._detailed_input_schema)


class _Pydantic1(_Outputs):
    """Schemas that are pydantic 1 classes, which pydantic 2 includes as `pydantic.v1`."""

    def __init__(self, inputs: type[pydantic.v1.BaseModel], outputs: Any) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self.fields = frozenset(name for key, field in inputs.__fields__.items() for name in (key, field.alias or key))
        self.ignores_others = inputs.__config__.extra is pydantic.v1.Extra.ignore

    def parse(self, record: dict[str, Any]) -> pydantic.v1.BaseModel:
        """Validates a record."""
        with _translate_validation_errors():
            return self._inputs.parse_obj(record)

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the JSON Schemas that the classes' `schema` method makes."""
        return self._inputs.schema(), _output_json_schema(self._outputs)


class _Schema(_Outputs):
    """Schemas that are objects of the package `schema`."""

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self._inputs = inputs
        self._outputs = outputs
        keys = inputs.schema if isinstance(inputs.schema, dict) else {}
        self.fields = frozenset(str(getattr(key, "schema", key)) for key in keys)
        self.ignores_others = False  # It refuses them by default; if it allows them, the model gets them.

    def parse(self, record: dict[str, Any]) -> dict[str, Any]:
        """Validates a record and returns it unchanged, because the model's `predict` validates it again."""
        try:
            self._inputs.validate(record)
        except Exception as error:  # noqa: BLE001 - schemas call functions of the model
            raise RecordRefused(" ".join(str(error).split()), violations_behind(error)) from None
        return record

    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the JSON Schemas that the objects' `json_schema` method makes."""
        return self._inputs.json_schema("input"), self._outputs.json_schema("output")


@contextmanager
def _translate_validation_errors() -> Iterator[None]:
    """Translates a validation error of pydantic to RecordRefused, and any other exception to ModelFailed."""
    try:
        yield
    except pydantic.ValidationError as error:
        raise _refused(error.errors(include_url=False, include_input=False, include_context=False)) from None
    except pydantic.v1.ValidationError as error:
        raise _refused(error.errors()) from None
    except BaseException as error:
        raise ModelFailed(
            "The model's schema raised an exception. It is in the server's log, under the request id of this call.",
            error_class=type(error).__name__,
        ) from error


def violations_behind(error: BaseException | None) -> tuple[FieldViolation, ...]:
    """Returns the violations that the schema library, or MLflow, reported in the chain of causes of an exception."""
    while error is not None:
        if isinstance(error, RecordRefused):
            return error.violations
        if isinstance(error, pydantic.ValidationError):
            return _refused(error.errors(include_url=False, include_input=False, include_context=False)).violations
        if isinstance(error, pydantic.v1.ValidationError):
            return _refused(error.errors()).violations
        if isinstance(autos := getattr(error, "autos", None), list):
            return _violations_of_schema_package([str(message) for message in autos if message])
        error = error.__cause__ or error.__context__
    return ()


_KEYS = re.compile(r"^(?:Key|Wrong key|Missing keys?:?) (.*?)(?: error:| in .*)?$", re.DOTALL)


def _violations_of_schema_package(messages: list[str]) -> tuple[FieldViolation, ...]:
    """Reads violations from the messages of the package `schema`, which name the path from the outermost key inward."""
    path: list[str] = []
    missing: list[str] = []
    for message in messages:
        if (match := _KEYS.match(message)) is None:
            continue
        names = re.findall(r"'((?:[^'\\]|\\.)*)'", match[1])
        if message.startswith("Missing"):
            missing = names
        else:
            path += names[:1]
    fields = [".".join([*path, name]) for name in missing] or ([".".join(path)] if path else [])
    return tuple(FieldViolation(field, " ".join(messages[-1].split())) for field in fields)


def _refused(problems: Any) -> RecordRefused:
    violations = tuple(FieldViolation(_path(problem["loc"]), str(problem["msg"])) for problem in problems)
    message = "; ".join(
        f"{violation.field}: {violation.description}" if violation.field else violation.description
        for violation in violations
    )
    return RecordRefused(message, violations)


def _path(loc: tuple[Any, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc if step != "__root__")
    return "".join(steps).lstrip(".")


def _to_json_values(output: Any) -> Any:
    if isinstance(output, pydantic.v1.BaseModel):
        return json.loads(output.json(by_alias=True))
    return pydantic_core.to_jsonable_python(output, by_alias=True, fallback=numpy_to_python)


def _to_python_values(output: Any) -> Any:
    if isinstance(output, pydantic.BaseModel):
        return output.model_dump(by_alias=True)
    if not isinstance(output, pydantic.v1.BaseModel):
        return output
    values = output.dict(by_alias=True)
    return values.get("__root__") if output.__custom_root_type__ else values


def numpy_to_python(value: Any) -> Any:
    """Returns the Python value of a numpy value or of a pydantic 1 instance; raises TypeError for anything else."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, pydantic.v1.BaseModel):
        return json.loads(value.json(by_alias=True))
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def _output_json_schema(outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, type) and issubclass(outputs, pydantic.BaseModel):
        return outputs.model_json_schema(mode="serialization")
    if isinstance(outputs, type) and issubclass(outputs, pydantic.v1.BaseModel):
        return outputs.schema()
    return {}
