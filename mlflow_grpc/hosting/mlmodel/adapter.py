"""Hosts Python packages that implement the MLModel interface, of either generation, unchanged.

ml_base (PyPI: ml-base): schemas are pydantic classes of version 1 or 2, `predict` takes and returns instances.
ml_model_abc, its predecessor: schemas are objects of the package `schema`, `predict` takes and returns dictionaries.

Rule of this module: neither is imported. What derives from their classes has imported them, and tells by its bases.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from mlflow_grpc.config import Decorator
from mlflow_grpc.contract import json_schema, mlflow_schema
from mlflow_grpc.contract.examples import example_of
from mlflow_grpc.contract.types import Contract, Record, Tensor
from mlflow_grpc.errors import InvalidPayload, ModelFailed, StartError
from mlflow_grpc.hosting import import_path
from mlflow_grpc.hosting.chunks import each_part
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.hosting.mlmodel import joint_records, schemas
from mlflow_grpc.hosting.mlmodel.schemas import RecordRefused, RecordSchema
from mlflow_grpc.hosting.model import About, SchemaTexts
from mlflow_grpc.naming import name_from

NEWER, OLDER = joint_records.NEWER, "ml_model_abc"
INTERFACE, DECORATOR, REFUSAL = "MLModel", joint_records.DECORATOR, "MLModelSchemaValidationException"


class MLModel:
    """A model that takes a record and gives one for it, or takes several at once if its class has `predict_many`."""

    def __init__(self, model: Any, generation: str, *, name: str | None = None) -> None:
        """Args:
        model: An instance of a class of the interface.
        generation: `ml_base` or `ml_model_abc`.
        name: What to call it; its qualified name if not given.

        Raises:
            StartError: One of its properties raised or is not what the interface says.

        """
        path = type(model).__qualname__
        self._model = model
        self._predict_many = joint_records.predict_many_of(model)
        self.qualified_name = _text(path, model, "qualified_name")
        self.version = _version(path, model, generation)
        self.name = name or name_from(self.qualified_name)
        self.description = f"MLModel, {generation}"
        self.schema: RecordSchema = schemas.schema_of(
            _property(path, model, "input_schema"), _property(path, model, "output_schema")
        )
        self.about = self._about(path, generation)

    def _about(self, path: str, generation: str) -> About:
        try:
            inputs, outputs = self.schema.json_schemas()
            contract = Contract(json_schema.input_of(inputs), json_schema.record_of(outputs, "output"))
            texts = json_schema.text_of(inputs), json_schema.text_of(outputs)
        except Exception as error:
            raise StartError(f"{path}: its schemas have no form as JSON Schema: {one_line(error)}") from error
        deterministic = _property(path, self._model, "deterministic", None)
        return About(
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
        """A record that the schema takes, if the one that is made of it does."""
        record = example_of(schema)
        if not isinstance(record, dict):
            return ""
        try:
            self.schema.parse(record)
            return json.dumps(record)
        except Exception:  # noqa: BLE001 - validators are the model's, and this record is not
            return ""

    def predict(self, data: Any, params: dict[str, Any] | None) -> list[Any]:
        """Runs the model on all records at once if its class has `predict_many`, else on one after the other.

        Args:
            data: Records as `schema.parse` gives them.
            params: None; the interface knows no params.

        Raises:
            InvalidPayload: The model says that a record does not fit its schema.
            ModelFailed: The model raised anything else, or has not one output for each record.

        """
        if self._predict_many is not None and len(data) > 1:
            return self._together(self._predict_many, data)
        return [self._predict(record, f"[{place}]" if len(data) > 1 else "") for place, record in enumerate(data)]

    @staticmethod
    def _together(predict_many: joint_records.PredictMany, data: list[Any]) -> list[Any]:
        with _errors_told(""):
            found = predict_many(data)
        if not isinstance(found, list | tuple) or len(found) != len(data):
            what = f"{len(found)} outputs" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
            raise ModelFailed(
                f"The model's {joint_records.METHOD} gave {what} for {len(data)} records; it has to give a list."
            )
        return list(found)

    def _predict(self, record: Any, place: str) -> Any:
        with _errors_told(place):
            return self._model.predict(data=record)

    @property
    def streams(self) -> bool:
        """Whether its class has a `predict_stream`; one behind a decorator that has none does not count, since calls
        would pass the decorator by.
        """
        return callable(getattr(type(self._model), "predict_stream", None))

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        """Runs the model's `predict_stream` on the one record that there is; each part is as an answer of `predict`.

        Raises:
            InvalidPayload: There are several records, or the model says that it does not fit its schema.
            ModelFailed: The model raised anything else.

        """
        if len(data) != 1:
            raise InvalidPayload(f"predict_stream takes one record, and these are {len(data)}.")
        found = each_part(lambda: self._model.predict_stream(data=data[0]), lambda: _errors_told(""))
        with closing(found) as parts:
            for part in parts:
                yield [part]


@contextmanager
def _errors_told(place: str) -> Iterator[None]:
    """Turns whatever the model raises, for the record at a place, into InvalidPayload or ModelFailed."""
    try:
        yield
    except BaseException as error:
        if any(import_path.derives_from(type(error), package, REFUSAL) for package in (NEWER, OLDER)):
            refused = RecordRefused(str(error), schemas.violations_behind(error))
            raise InvalidPayload(**refused.words(place)) from None
        raise ModelFailed(
            "The model raised an exception. It is in the server's log, under the request id of this answer.",
            error_class=type(error).__name__,
        ) from error


def load(
    class_path: str,
    *,
    name: str | None = None,
    configuration: dict[str, Any] | None = None,
    decorators: tuple[Decorator, ...] = (),
) -> MLModel:
    """Makes an instance of a class that implements the interface, with its decorators around it.

    Args:
        class_path: `package.module.Class`.
        name: What to call it; its qualified name if not given.
        configuration: Keyword arguments of the class.
        decorators: From the innermost to the outermost.

    Raises:
        StartError: There is no such class, it does not implement the interface, or it cannot be made.

    """
    found = import_path.find(class_path)
    generation = next((each for each in (NEWER, OLDER) if import_path.derives_from(found, each, INTERFACE)), None)
    if generation is None:
        raise StartError(f"{class_path} does not derive from {NEWER}.{INTERFACE} or {OLDER}.{INTERFACE}")
    model = import_path.make(class_path, found, configuration)
    return MLModel(decorate(model, decorators), generation, name=name)


def decorate(model: Any, decorators: tuple[Decorator, ...]) -> Any:
    """Puts decorators around an `ml_base.MLModel`.

    Raises:
        StartError: One of them is no decorator, cannot be made, or does not take the model.

    """
    for decorator in decorators:
        path = decorator.class_path
        found = import_path.find(path)
        if not import_path.derives_from(found, NEWER, DECORATOR):
            raise StartError(f"{path} does not derive from {NEWER}.decorator.{DECORATOR}")
        around = import_path.make(path, found, decorator.configuration)
        try:
            model = around.set_model(joint_records.for_decorator(around, model))
        except BaseException as error:
            raise StartError(f"{path} cannot be put around {type(model).__name__}: {one_line(error)}") from error
    return model


def _mlflow_json(part: Record | Tensor | None) -> str:
    return json.dumps(mlflow_schema.schema_of(part)) if isinstance(part, Record) else ""


def _property(path: str, model: Any, name: str, *otherwise: Any) -> Any:
    try:
        return getattr(model, name, *otherwise)
    except BaseException as error:
        raise StartError(f"{path}: its {name} raised {one_line(error)}") from error


def _text(path: str, model: Any, name: str) -> str:
    value = _property(path, model, name)
    if not isinstance(value, str):
        raise StartError(f"{path}: its {name} is no text, but of type {type(value).__name__}")
    return value


def _version(path: str, model: Any, generation: str) -> str:
    if generation == NEWER:
        return _text(path, model, "version")
    return ".".join(str(_property(path, model, part)) for part in ("major_version", "minor_version"))
