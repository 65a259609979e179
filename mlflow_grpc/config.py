"""Which models a server hosts: one that the settings name, or those of a configuration file.

Rule of this module: it reads and checks, and loads nothing. A file that is not right is refused with the place in
it that is wrong. The `rest_config.yaml` of rest-model-service is a configuration file as it is.
"""

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Batching, OnError, Payload, Settings

MLMODEL_SCHEME = "mlmodel:"
"""Stands before the path of an MLModel class where an MLflow URI can stand too."""

NAME = r"^[A-Za-z0-9._-]{1,128}$"
CLASS_PATH = r"^[^\W\d]\w*(\.[^\W\d]\w*)+$"

Name = Annotated[str, StringConstraints(pattern=NAME)]
ClassPath = Annotated[str, StringConstraints(pattern=CLASS_PATH)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)


class Decorator(_Strict):
    """A decorator around a model: a class derived from `ml_base.decorator.MLModelDecorator`."""

    class_path: ClassPath
    configuration: dict[str, Any] | None = None


class ModelConfig(_Strict):
    """One model that is to be hosted: an MLflow model by its `uri`, or an MLModel package by its `class_path`."""

    uri: Annotated[str, StringConstraints(min_length=1)] | None = None
    class_path: ClassPath | None = None
    name: Name | None = None
    """The name that callers use; made from the model if not given."""
    version: Name | None = None
    """The version that callers may ask for; the model's own if not given."""
    configuration: dict[str, Any] | None = None
    """MLflow's `model_config`, or the keyword arguments of the class."""
    decorators: tuple[Decorator, ...] = ()
    """From the innermost to the outermost."""
    batching: Batching | None = None
    payload: Payload | None = None
    default: bool = False
    """Whether calls that name no model are for this one, or calls that name no version for this version."""
    on_error: OnError | None = None
    endpoint: bool = Field(True, validation_alias=AliasChoices("endpoint", "create_endpoint"))
    """Whether the model can be called; else it is loaded and listed only."""

    @model_validator(mode="before")
    @classmethod
    def _none_is_absent(cls, value: Any) -> Any:
        # YAML gives None for a key with nothing behind it.
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.uri is None) == (self.class_path is None):
            raise ValueError("give either uri (an MLflow model) or class_path (an MLModel class)")
        if (self.class_path is not None or self.decorators) and self.payload is Payload.TEXT:
            raise ValueError("payload: text is for MLflow models; MLModel classes and decorators take records")
        return self

    @property
    def source(self) -> str:
        """Where the model comes from, in one word."""
        return self.uri or f"{MLMODEL_SCHEME}{self.class_path}"


class _File(_Strict):
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    logging: dict[str, Any] | None = None
    # Of rest-model-service: words for its OpenAPI document, and its own metrics.
    service_title: str | None = None
    version: str | None = None
    description: str | None = None
    metrics: dict[str, Any] | None = None


class Configuration(BaseModel):
    """What a server is to host."""

    model_config = ConfigDict(frozen=True)

    models: tuple[ModelConfig, ...]
    logging: dict[str, Any] | None = None
    """For `logging.config.dictConfig`."""


def load(settings: Settings) -> Configuration:
    """The models that the settings name, by themselves or through a file.

    Raises:
        StartError: The file cannot be read or is not right; one line that names the place.

    """
    if settings.config is not None:
        return read(settings.config)
    uri = settings.model_uri or ""
    of_class = uri.startswith(MLMODEL_SCHEME)
    try:
        model = ModelConfig(
            uri=None if of_class else uri,
            class_path=uri.removeprefix(MLMODEL_SCHEME) if of_class else None,
            name=settings.model_name,
            configuration=settings.pyfunc_config,
            payload=settings.payload,
            endpoint=True,
        )
    except ValidationError as error:
        raise StartError(f"{uri}: {_explain(error)}") from None
    return Configuration(models=(model,))


def read(path: Path) -> Configuration:
    """The models of a configuration file.

    Raises:
        StartError: The file cannot be read or is not right; one line that names the place.

    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    except yaml.YAMLError as error:
        raise StartError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise StartError(f"{path} lists no models: it has to be a mapping with the key models")
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise StartError(f"{path}: {_explain(error)}") from None
    _check_names(path, file.models)
    return Configuration(models=file.models, logging=file.logging)


def _check_names(path: Path, models: tuple[ModelConfig, ...]) -> None:
    named = [f"{model.name}/{model.version or ''}".rstrip("/") for model in models if model.name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise StartError(f"{path}: more than one model is called {', '.join(twice)}; give each a name or a version")


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        words = str(problem["msg"]).removeprefix("Value error, ")
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
        problems.append(f"{place}: {words[:1].lower()}{words[1:]}" if place else words)
    return "; ".join(problems)
