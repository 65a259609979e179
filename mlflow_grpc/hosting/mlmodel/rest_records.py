"""Records of an MLModel package in the form that rest-model-service reads and writes.

Source: `rest_model_service.routes.PredictionController` 0.6.0, and FastAPI, which validates the body first.

Rule of this module: values are validated as Python values, not as JSON text as in `schemas`. FastAPI does the same, and
pydantic's answers and messages differ between the two.
"""

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

import pydantic
import pydantic.v1
import pydantic_core

from mlflow_grpc.errors import ModelFailed, UnserializableOutput
from mlflow_grpc.hosting.mlmodel.rest_faults import Fault, RestRecordRefused
from mlflow_grpc.hosting.mlmodel.schemas import RecordRefused, RecordSchema, numpy_to_python

NO_INSTANCE = "The model did not return an instance of its output schema."
NO_JSON = "The model returned a value that cannot be written as JSON."


class RestRecords:
    """Reads and writes the records of one model.

    rest-model-service 0.6.0 serves only models whose schemas are pydantic 2 classes. The records of other models are
    validated by their own libraries here, and are otherwise treated alike.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        schema: RecordSchema,
        *,
        qualified_name: str,
        ignored_fields: Callable[[list[dict[str, Any]]], tuple[str, ...]],
    ) -> None:
        """Takes the schemas of the model.

        Args:
            inputs: The model's `input_schema`.
            outputs: Its `output_schema`.
            schema: The schema made from both.
            qualified_name: Its name.
            ignored_fields: Returns the fields of records that the schema does not have; raises InvalidPayload if they
                are refused.
        """
        self._inputs, self._outputs, self._schema = inputs, outputs, schema
        self.qualified_name = qualified_name
        self.ignored_fields = ignored_fields
        self._is_pydantic = _is_pydantic(inputs) and _is_pydantic(outputs)

    def parse(self, value: Any) -> Any:
        """Validates a JSON value and returns the argument for the model's `predict`.

        Raises:
            RestRecordRefused: The value does not fit the schema.
            ModelFailed: The schema raised an exception other than its library's validation error.

        """
        try:
            if _is_pydantic(self._inputs):
                return self._inputs.model_validate(value, from_attributes=True)
            return self._schema.parse(_object(value))
        except pydantic.ValidationError as error:
            raise RestRecordRefused(
                tuple(
                    Fault(fault["loc"], fault["type"], fault["msg"])
                    for fault in error.errors(include_url=False, include_input=False, include_context=False)
                )
            ) from None
        except RecordRefused as refused:
            faults = tuple(
                Fault((violation.field,), "value_error", violation.description) for violation in refused.violations
            )
            raise RestRecordRefused(faults or (Fault((), "value_error", str(refused)),)) from None
        except (RestRecordRefused, ModelFailed):
            raise
        except BaseException as error:
            raise ModelFailed(
                "The model's schema raised an exception. It is in the server's log, under the request id of this "
                "answer.",
                error_class=type(error).__name__,
            ) from error

    def dump(self, output: Any) -> bytes:
        """Writes an output of `predict` in the form of starlette's JSONResponse, with the names of the fields.

        Values such as dates and enums, which make rest-model-service fail, have pydantic's form.

        Raises:
            UnserializableOutput: The output is not an instance of a schema class, or has no JSON form.
        """
        try:
            values = output.model_dump() if self._is_pydantic else self._schema.dump(output)
        except Exception as error:
            is_instance = isinstance(output, pydantic.BaseModel) or not self._is_pydantic
            raise UnserializableOutput(NO_JSON if is_instance else NO_INSTANCE) from error
        try:
            try:
                return _json(values)
            except TypeError:
                return _json(pydantic_core.to_jsonable_python(output, by_alias=False, fallback=numpy_to_python))
        except Exception as error:
            raise UnserializableOutput(NO_JSON) from error

    @cached_property
    def json_schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the JSON Schemas of input and output, like `ml_base.utilities.ModelManager.get_model_metadata`."""
        if self._is_pydantic:
            return self._inputs.model_json_schema(), self._outputs.model_json_schema()
        return self._schema.json_schemas()


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RestRecordRefused((Fault((), "dict_type", "Input should be a valid dictionary"),))
    return value


def _is_pydantic(schema: Any) -> bool:
    return isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)


def _json(values: Any) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
