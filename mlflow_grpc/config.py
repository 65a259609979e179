"""The models that a server hosts: the model of the settings, or those of a configuration file.

Rule of this module: it reads and checks, and loads no model. An invalid file is refused with the path of the error. The
`rest_config.yaml` of rest-model-service is accepted unchanged, with warnings where our own format has errors.

It has more than 300 lines, because the keys of a model depend on each other.
"""

import difflib
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mlflow_grpc import rest_config
from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.cache_config import CacheLimits
from mlflow_grpc.challenger_config import Challenger
from mlflow_grpc.choices import Batching, OnError, Payload, UnknownColumns
from mlflow_grpc.declarations import duration_s
from mlflow_grpc.errors import StartError
from mlflow_grpc.naming import (
    MAX_CHARACTERS,
    Name,
    always_same,
    can_move,
    canonical_uri,
    name_from_uri,
    without_secrets,
)
from mlflow_grpc.rollout_settings import MAX_TRACK_S, MIN_TRACK_S
from mlflow_grpc.settings import Settings
from mlflow_grpc.yaml_file import parse_yaml

MLMODEL_SCHEME = "mlmodel:"
"""Prefix of the path of an MLModel class, where an MLflow URI is accepted too."""


_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def _class_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError("must have the form package.module.Class")
    return text


ClassPath = Annotated[str, AfterValidator(_class_path)]


def _function_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError("must have the form package.module.function")
    return text


FunctionPath = Annotated[str, AfterValidator(_function_path)]


def _interval(value: Any) -> Any:
    return 0.0 if value is False else duration_s(value)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)


class Decorator(_Strict):
    """A decorator around a model: a class derived from `ml_base.decorator.MLModelDecorator`."""

    class_path: ClassPath
    configuration: dict[str, Any] | None = None


class ModelConfig(_Strict):
    """A model to host: an MLflow model by its `uri`, or an MLModel package by its `class_path`."""

    uri: Annotated[str, StringConstraints(min_length=1), AfterValidator(canonical_uri)] | None = None
    class_path: ClassPath | None = None
    name: Name | None = None
    """Name for callers; by default that of the model."""
    version: Name | None = None
    """Version for callers; by default that of the model."""
    configuration: dict[str, Any] | None = None
    """MLflow's `model_config`, or keyword arguments of the class."""
    decorators: tuple[Decorator, ...] = ()
    """Decorators around the model, from the innermost to the outermost."""
    preprocess: FunctionPath | None = None
    """Function from the frame that was sent to the frame for the model."""
    postprocess: FunctionPath | None = None
    """Function from the model's predictions to those for the caller."""
    batching: Batching | None = None
    payload: Payload | None = None
    unknown_columns: UnknownColumns | None = None
    try_example: bool | None = None
    """True to try the typed RPCs on the model's input example when it is loaded."""
    default: bool = False
    """True if the model is for calls without a model's name, or this version for calls without a version."""
    on_error: OnError | None = None
    track: Annotated[float, BeforeValidator(_interval), Field(allow_inf_nan=False)] | None = None
    """Interval at which the registry is queried for another version, in seconds; 0 (or `off`) for never."""
    challenger: Challenger | None = None
    """Another model that gets a share of the calls, or runs behind them."""
    cache: CacheLimits | None = None
    """Limits of the cache of answers; None for no cache."""
    endpoint: bool = Field(True, validation_alias=AliasChoices("endpoint", "create_endpoint"))
    """True if the model can be called; otherwise it is only loaded and listed."""

    @model_validator(mode="before")
    @classmethod
    def _none_is_absent(cls, value: Any) -> Any:
        # YAML reads a key without a value as None.
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.uri is None) == (self.class_path is None):
            raise ValueError("give either uri (an MLflow model) or class_path (an MLModel class)")
        if (self.class_path is not None or self.decorators) and self.payload is Payload.TEXT:
            raise ValueError("payload: text is for MLflow models; MLModel classes and decorators take records")
        if self.has_hooks and (self.uri is None or self.decorators):
            raise ValueError("preprocess and postprocess are for MLflow models (uri) without decorators")
        if self.has_hooks and self.payload is Payload.TEXT:
            raise ValueError("payload: text is for MLflow models without preprocess and postprocess, which take tables")
        return self

    @model_validator(mode="after")
    def _may_be_tracked(self) -> Self:
        if not self.track:
            return self
        if not MIN_TRACK_S <= self.track <= MAX_TRACK_S:
            raise ValueError(f"track has to be off, or a number of seconds from {MIN_TRACK_S:g} to {MAX_TRACK_S:g}")
        if not can_move(self.uri or ""):
            raise ValueError(f"track has no effect: {always_same(self.source)}")
        return self

    @model_validator(mode="after")
    def _may_have_a_challenger(self) -> Self:
        if self.challenger is not None and (self.uri is None or not self.endpoint):
            raise ValueError("challenger is for MLflow models (uri) that can be called, without endpoint: false")
        return self

    @property
    def has_hooks(self) -> bool:
        """True if the model has a preprocess or postprocess function."""
        return self.preprocess is not None or self.postprocess is not None

    @property
    def source(self) -> str:
        """URI or class path of the model, without secrets."""
        return without_secrets(self.uri) if self.uri else f"{MLMODEL_SCHEME}{self.class_path}"


class ChallengerModel(ModelConfig):
    """The challenger of the model before it in the configuration; without an endpoint, it has no calls of its own."""


def with_challengers(models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
    """Returns the models with the challenger of each directly behind it.

    A challenger has the options of its champion, such as its hooks. If the champion is tracked, so is the challenger.
    """
    expanded: list[ModelConfig] = []
    for model in models:
        expanded.append(model)
        if (challenger := model.challenger) is None:
            continue
        name, suffix = model.name or name_from_uri(model.uri or ""), "-challenger"
        options = {
            **dict(model),
            "uri": challenger.uri,
            "name": name[: MAX_CHARACTERS - len(suffix)] + suffix,
            "version": challenger.version,
            "default": False,
            "track": model.track if can_move(challenger.uri) else None,
            "on_error": challenger.on_error,
            "challenger": None,
            "cache": None if challenger.shadow else model.cache,
            "endpoint": False,
        }
        expanded.append(ChallengerModel.model_construct(**options))
    return tuple(expanded)


class _File(_Strict):
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    access: tuple[AccessRule, ...] | None = None
    logging: dict[str, Any] | None = None
    # Keys of rest-model-service for its OpenAPI document and its metrics, accepted in our own format too.
    service_title: str | None = None
    version: str | None = None
    description: str | None = None
    metrics: dict[str, Any] | None = None


class ServiceInfo(BaseModel):
    """Title, version and description of the OpenAPI document; None for the server's own."""

    model_config = ConfigDict(frozen=True)

    title: str | None = None
    version: str | None = None
    description: str | None = None


class Configuration(BaseModel):
    """Models and logging of a server."""

    model_config = ConfigDict(frozen=True)

    models: tuple[ModelConfig, ...]
    access: tuple[AccessRule, ...] | None = None
    """Which callers may call what; None if every caller that is recognized may call everything."""
    logging: dict[str, Any] | None = None
    """Configuration for `logging.config.dictConfig`."""
    service: ServiceInfo = ServiceInfo()
    warnings: tuple[str, ...] = ()
    """Log lines about keys without effect, each with its file and path."""


def load(settings: Settings) -> Configuration:
    """Returns the models that the settings name, directly or in a file.

    Raises:
        StartError: The file cannot be read or is invalid; the message has the path of the error.

    """
    if settings.config is not None:
        return read(settings.config)
    uri = settings.model_uri or ""
    is_class = uri.startswith(MLMODEL_SCHEME)
    try:
        model = ModelConfig(
            uri=None if is_class else uri,
            class_path=uri.removeprefix(MLMODEL_SCHEME) if is_class else None,
            name=settings.model_name,
            configuration=settings.pyfunc_config,
            payload=settings.payload,
            endpoint=True,
        )
    except ValidationError as error:
        raise StartError(f"{uri}: {_explain(error)}") from None
    return Configuration(models=(model,))


def read(path: Path) -> Configuration:
    """Reads a configuration file.

    Raises:
        StartError: The file cannot be read or is invalid; the message has the path of the error.

    """
    try:
        content, duplicate_keys = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: invalid dates. RecursionError: depth.
        raise StartError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise StartError(f"{path} lists no models: it has to be a mapping with the key models")
    warnings: list[str] = []
    if rest_config.is_rest_config(content, ModelConfig.model_fields):
        content, warnings = rest_config.to_configuration(content)
        warnings += [f"{line}; the last one counts" for line in duplicate_keys]
    elif duplicate_keys:
        raise StartError(f"{path}: {duplicate_keys[0]}")
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise StartError(f"{path}: {_explain(error)}") from None
    models = with_challengers(file.models)
    _check_names(path, models)
    return Configuration(
        models=models,
        access=file.access,
        logging=file.logging,
        service=ServiceInfo(title=file.service_title, version=file.version, description=file.description),
        warnings=tuple(f"{path}: {line}" for line in warnings),
    )


def _check_names(path: Path, models: tuple[ModelConfig, ...]) -> None:
    named = [f"{model.name}/{model.version or ''}".rstrip("/") for model in models if model.name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise StartError(f"{path}: several models are called {', '.join(twice)}; give each a name or a version")


_MESSAGES = {
    "tuple_type": "has to be a list",
    "too_short": "has to have at least one entry",
    "dict_type": "has to be a mapping",
    "model_type": "has to be a mapping",
    "missing": "is missing",
}
"""Messages for errors whose own messages are about Python."""


def _explain(error: ValidationError) -> str:
    errors = error.errors()
    messages = []
    for problem in errors:
        loc = problem["loc"]
        # pydantic counts only the valid items of a list, so an invalid item makes the list too short as well.
        if problem["type"] == "too_short" and any(inner["loc"][: len(loc)] == loc != inner["loc"] for inner in errors):
            continue
        message = _message(problem)
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc).lstrip(".")
        messages.append(f"{path}: {message[:1].lower()}{message[1:]}" if path else message)
    return "; ".join(messages)


def _message(problem: Any) -> str:
    error_type, value = problem["type"], problem["input"]
    if error_type == "extra_forbidden":
        return _unknown_key(problem["loc"])
    if error_type == "string_type":
        return "has to be a text" if isinstance(value, list | dict) else "has to be a text: put it in quotes"
    if error_type == "string_unicode":  # Python's surrogates, for bytes of a path that are invalid in its encoding.
        encoding = sys.getfilesystemencoding()
        advice = "rename it" if encoding == "utf-8" else "set PYTHONUTF8=1"
        return f"has bytes that are not {encoding}, in which paths are read here: {advice}"
    return _MESSAGES.get(error_type) or str(problem["msg"]).removeprefix("Value error, ")


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    """Error text for an unknown key at the top level, in a model, in a rule of access or in a part of a model."""
    classes: dict[int, type[BaseModel]] = {1: _File, 3: AccessRule if loc[0] == "access" else ModelConfig}
    parts: dict[Any, type[BaseModel]] = {"challenger": Challenger, "cache": CacheLimits}
    config_class = classes.get(len(loc)) or parts.get(loc[-2], Decorator)
    key, names = str(loc[-1]), [*config_class.model_fields]
    aliases = {name for field in config_class.model_fields.values() for name in _aliases(field.validation_alias)}
    if key in aliases:
        return f"means the same as {', '.join(sorted(aliases - {key}))}, which is set too"
    near = difflib.get_close_matches(key, names, 1)
    advice = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(names)}"
    return f"there is no such key; {advice}"


def _aliases(alias: Any) -> list[str]:
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
