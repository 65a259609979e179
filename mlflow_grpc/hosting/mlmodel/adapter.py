"""Hosting of Python packages that implement the MLModel interface of either generation.

ml_base (PyPI: ml-base): schemas are pydantic classes of version 1 or 2, `predict` takes and returns instances.
ml_model_abc, its predecessor: schemas are objects of the package `schema`, `predict` takes and returns dictionaries.

Rule of this module: it imports neither package. A class that implements the interface has imported its package, and the
names of its base classes show which one.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from mlflow_grpc.config import Decorator
from mlflow_grpc.contract import json_schema, mlflow_schema
from mlflow_grpc.contract.examples import example_of
from mlflow_grpc.contract.types import Contract, Record, Tensor
from mlflow_grpc.errors import InvalidPayload, ModelFailed, RefusedByModel, StartError
from mlflow_grpc.hosting import import_path
from mlflow_grpc.hosting.chunks import iterate_chunks
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.hosting.mlmodel import joint_records, schemas
from mlflow_grpc.hosting.mlmodel.rest_records import RestRecords
from mlflow_grpc.hosting.mlmodel.schemas import RecordRefused, RecordSchema
from mlflow_grpc.hosting.model import ModelInfo, SchemaTexts
from mlflow_grpc.naming import name_from

NEWER, OLDER = joint_records.NEWER, "ml_model_abc"
INTERFACE, DECORATOR, REFUSAL = "MLModel", joint_records.DECORATOR, "MLModelSchemaValidationException"


class MLModel:
    """A model that returns one output per record, and takes several records at once if its class has `predict_many`."""

    def __init__(self, model: Any, generation: str, *, name: str | None = None) -> None:
        """Reads the model's name, version and schemas.

        Args:
            model: An instance of a class that implements the interface.
            generation: `ml_base` or `ml_model_abc`.
            name: The model's name on this server. Its qualified name if None.

        Raises:
            StartError: One of its properties raised an exception or does not follow the interface.

        """
        path = type(model).__qualname__
        self._model = model
        self._predict_many = joint_records.predict_many_of(model)
        self.qualified_name = _text(path, model, "qualified_name")
        self.version = _version(path, model, generation)
        self.name = name or name_from(self.qualified_name)
        self.description = f"MLModel, {generation}"
        inputs, outputs = _property(path, model, "input_schema"), _property(path, model, "output_schema")
        self.schema: RecordSchema = schemas.schema_of(inputs, outputs)
        self._schemas = inputs, outputs
        self.info = self._info(path, generation)

    def rest_records(self, ignored_fields: Callable[[list[dict[str, Any]]], tuple[str, ...]]) -> RestRecords:
        """Returns how rest-model-service reads and writes the model's records; see `RestRecords` for the argument."""
        return RestRecords(
            *self._schemas, self.schema, qualified_name=self.qualified_name, ignored_fields=ignored_fields
        )

    def _info(self, path: str, generation: str) -> ModelInfo:
        try:
            inputs, outputs = self.schema.json_schemas()
            contract = Contract(json_schema.input_of(inputs), json_schema.record_of(outputs, "output"))
            texts = json_schema.text_of(inputs), json_schema.text_of(outputs)
        except Exception as error:
            raise StartError(f"{path}: its schemas cannot be written as JSON Schema: {one_line(error)}") from error
        deterministic = _property(path, self._model, "deterministic", None)
        return ModelInfo(
            display_name=_text(path, self._model, "display_name"),
            description=_text(path, self._model, "description"),
            flavors=(INTERFACE, generation),
            contract=contract,
            input=SchemaTexts(_mlflow_json(contract.inputs), texts[0]),
            output=SchemaTexts(_mlflow_json(contract.outputs), texts[1]),
            deterministic=deterministic if isinstance(deterministic, bool) else None,
            example=self._example(inputs),
        )

    def _example(self, schema: dict[str, Any]) -> str:
        """Returns a generated record as JSON; empty if the model's own validators refuse it."""
        record = example_of(schema)
        if not isinstance(record, dict):
            return ""
        try:
            self.schema.parse(record)
            return json.dumps(record)
        except Exception:  # noqa: BLE001 - the model's validators may raise anything
            return ""

    def predict(self, data: Any, params: dict[str, Any] | None) -> list[Any]:
        """Runs the model on all records at once if its class has `predict_many`, else on one record after the other.

        Args:
            data: Records as `schema.parse` returns them.
            params: None, because the interface has no params.

        Raises:
            RefusedByModel: The model reported that a record does not fit its schema.
            ModelFailed: The model raised another exception, or did not return one output per record.

        """
        if self._predict_many is not None and len(data) > 1:
            return self._predict_jointly(self._predict_many, data)
        return [self._predict(record, f"[{index}]" if len(data) > 1 else "") for index, record in enumerate(data)]

    @staticmethod
    def _predict_jointly(predict_many: joint_records.PredictMany, data: list[Any]) -> list[Any]:
        with _translate_model_errors(""):
            outputs = predict_many(data)
        if not isinstance(outputs, list | tuple) or len(outputs) != len(data):
            result = f"{len(outputs)} outputs" if isinstance(outputs, list | tuple) else f"a {type(outputs).__name__}"
            raise ModelFailed(
                f"The model's {joint_records.METHOD} returned {result} for {len(data)} records. It must return a list "
                "with one output per record."
            )
        return list(outputs)

    def _predict(self, record: Any, record_path: str) -> Any:
        with _translate_model_errors(record_path):
            return self._model.predict(data=record)

    @property
    def streams(self) -> bool:
        """True if the model's class has a `predict_stream`.

        Behind a decorator without this method it does not count, because calls would bypass the decorator.
        """
        return callable(getattr(type(self._model), "predict_stream", None))

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        """Runs the model's `predict_stream` on the only record; a chunk has the form of an answer of `predict`.

        Raises:
            InvalidPayload: There are several records.
            RefusedByModel: The model reported that the record does not fit its schema.
            ModelFailed: The model raised another exception.

        """
        if len(data) != 1:
            raise InvalidPayload(f"predict_stream takes one record, and these are {len(data)}.")
        with closing(
            iterate_chunks(lambda: self._model.predict_stream(data=data[0]), lambda: _translate_model_errors(""))
        ) as chunks:
            for chunk in chunks:
                yield [chunk]


@contextmanager
def _translate_model_errors(record_path: str) -> Iterator[None]:
    """Translates an exception of the model for the record at a path to RefusedByModel or ModelFailed."""
    try:
        yield
    except BaseException as error:
        if any(import_path.derives_from(type(error), package, REFUSAL) for package in (NEWER, OLDER)):
            refused = RecordRefused(str(error), schemas.violations_behind(error))
            refusal = RefusedByModel(**refused.error_arguments(record_path))
            refusal.refusal = str(error)
            raise refusal from None
        raise ModelFailed(
            "The model raised an exception. It is in the server's log, under the request id of this call.",
            error_class=type(error).__name__,
        ) from error


def load(
    class_path: str,
    *,
    name: str | None = None,
    configuration: dict[str, Any] | None = None,
    decorators: tuple[Decorator, ...] = (),
) -> MLModel:
    """Creates an instance of a class that implements the interface, and wraps it in its decorators.

    Args:
        class_path: `package.module.Class`.
        name: The model's name on this server. Its qualified name if None.
        configuration: Keyword arguments of the class.
        decorators: The decorators, innermost first.

    Raises:
        StartError: The class does not exist, does not implement the interface, or cannot be instantiated.

    """
    model_class = import_path.find(class_path)
    generation = next((name for name in (NEWER, OLDER) if import_path.derives_from(model_class, name, INTERFACE)), None)
    if generation is None:
        raise StartError(f"{class_path} does not derive from {NEWER}.{INTERFACE} or {OLDER}.{INTERFACE}")
    model = import_path.make(class_path, model_class, configuration)
    return MLModel(decorate(model, decorators), generation, name=name)


def decorate(model: Any, decorators: tuple[Decorator, ...]) -> Any:
    """Wraps an `ml_base.MLModel` in decorators.

    Raises:
        StartError: A class is not a decorator, cannot be instantiated, or does not take the model.

    """
    for decorator in decorators:
        path = decorator.class_path
        decorator_class = import_path.find(path)
        if not import_path.derives_from(decorator_class, NEWER, DECORATOR):
            raise StartError(f"{path} does not derive from {NEWER}.decorator.{DECORATOR}")
        instance = import_path.make(path, decorator_class, decorator.configuration)
        try:
            model = instance.set_model(joint_records.for_decorator(instance, model))
        except BaseException as error:
            raise StartError(f"{path} cannot wrap {type(model).__name__}: {one_line(error)}") from error
    return model


def _mlflow_json(fields: Record | Tensor | None) -> str:
    return json.dumps(mlflow_schema.schema_of(fields)) if isinstance(fields, Record) else ""


def _property(path: str, model: Any, name: str, *default: Any) -> Any:
    try:
        return getattr(model, name, *default)
    except BaseException as error:
        raise StartError(f"{path}: its {name} raised {one_line(error)}") from error


def _text(path: str, model: Any, name: str) -> str:
    value = _property(path, model, name)
    if not isinstance(value, str):
        raise StartError(f"{path}: its {name} is not a string, but of type {type(value).__name__}")
    return value


def _version(path: str, model: Any, generation: str) -> str:
    if generation == NEWER:
        return _text(path, model, "version")
    return ".".join(str(_property(path, model, number)) for number in ("major_version", "minor_version"))
