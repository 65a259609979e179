"""Which models a server hosts: one that the settings name, or those of a configuration file.

Rule of this module: it reads and checks, and loads nothing. A file that is not right is refused with the place in
it that is wrong. The `rest_config.yaml` of rest-model-service is a configuration file as it is, with warnings where
our own format has errors.
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
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mlflow_grpc import rest_config
from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.errors import StartError
from mlflow_grpc.naming import Name, canonical_uri, without_secrets
from mlflow_grpc.settings import Batching, OnError, Payload, Settings

MLMODEL_SCHEME = "mlmodel:"
"""Stands before the path of an MLModel class where an MLflow URI can stand too."""


_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def _class_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError("has to be like package.module.Class")
    return text


ClassPath = Annotated[str, AfterValidator(_class_path)]


def _function_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError("has to be like package.module.function")
    return text


FunctionPath = Annotated[str, AfterValidator(_function_path)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)


class Decorator(_Strict):
    """A decorator around a model: a class derived from `ml_base.decorator.MLModelDecorator`."""

    class_path: ClassPath
    configuration: dict[str, Any] | None = None


class ModelConfig(_Strict):
    """One model that is to be hosted: an MLflow model by its `uri`, or an MLModel package by its `class_path`."""

    uri: Annotated[str, StringConstraints(min_length=1), AfterValidator(canonical_uri)] | None = None
    class_path: ClassPath | None = None
    name: Name | None = None
    """The name that callers use; made from the model if not given."""
    version: Name | None = None
    """The version that callers may ask for; the model's own if not given."""
    configuration: dict[str, Any] | None = None
    """MLflow's `model_config`, or the keyword arguments of the class."""
    decorators: tuple[Decorator, ...] = ()
    """From the innermost to the outermost."""
    preprocess: FunctionPath | None = None
    """A function that makes the frame for the model of the one that was sent."""
    postprocess: FunctionPath | None = None
    """A function that makes the predictions for the caller of those of the model."""
    batching: Batching | None = None
    payload: Payload | None = None
    unknown_columns: UnknownColumns | None = None
    try_example: bool | None = None
    """Whether its typed RPCs are tried on its input example when it is loaded."""
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
        if self.has_hooks and (self.uri is None or self.decorators):
            raise ValueError("preprocess and postprocess are for MLflow models (uri) without decorators")
        if self.has_hooks and self.payload is Payload.TEXT:
            raise ValueError("payload: text is for MLflow models without preprocess and postprocess, which take tables")
        return self

    @property
    def has_hooks(self) -> bool:
        """Whether a function stands before or after the model."""
        return self.preprocess is not None or self.postprocess is not None

    @property
    def source(self) -> str:
        """Where the model comes from, as it may be shown."""
        return without_secrets(self.uri) if self.uri else f"{MLMODEL_SCHEME}{self.class_path}"


class _File(_Strict):
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    logging: dict[str, Any] | None = None
    # Of rest-model-service: words for its OpenAPI document, and its own metrics. A file of ours may have them too.
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
    warnings: tuple[str, ...] = ()
    """Lines for the log: keys that have no effect, each with the file and its place."""


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
        content, doubled = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # The last two are of dates that are none, and of depth.
        raise StartError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise StartError(f"{path} lists no models: it has to be a mapping with the key models")
    warnings: list[str] = []
    if rest_config.is_rest_config(content):
        content, warnings = rest_config.as_own(content)
        warnings += [f"{line}; the last one counts" for line in doubled]
    elif doubled:
        raise StartError(f"{path}: {doubled[0]}")
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise StartError(f"{path}: {_explain(error)}") from None
    _check_names(path, file.models)
    return Configuration(
        models=file.models, logging=file.logging, warnings=tuple(f"{path}: {line}" for line in warnings)
    )


def _check_names(path: Path, models: tuple[ModelConfig, ...]) -> None:
    named = [f"{model.name}/{model.version or ''}".rstrip("/") for model in models if model.name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise StartError(f"{path}: more than one model is called {', '.join(twice)}; give each a name or a version")


class _Loader(yaml.SafeLoader):
    """Notes keys that are there twice in a mapping, of which YAML's readers drop the first without a word.

    Looks at what is written: what `<<` merges in may well be there already.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.doubled: list[str] = []
        """A line for each of them."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if first := lines.get((key.tag, key.value)):
                self.doubled.append(f"the key {key.value} is there twice in one mapping, in lines {first} and {line}")
            lines[key.tag, key.value] = line
        return node


def _parsed(text: str) -> tuple[Any, list[str]]:
    """The content of a file, and a line for each key that is there twice."""
    loader = _Loader(text)
    try:
        return loader.get_single_data(), loader.doubled
    finally:
        loader.dispose()


_WORDS = {
    "tuple_type": "has to be a list",
    "too_short": "has to have at least one entry",
    "dict_type": "has to be a mapping",
    "model_type": "has to be a mapping",
    "missing": "is missing",
}
"""Of errors whose own words are about Python."""


def _explain(error: ValidationError) -> str:
    found = error.errors()
    problems = []
    for problem in found:
        at = problem["loc"]
        # What is wrong within a list is not in it any more when it is counted.
        if problem["type"] == "too_short" and any(each["loc"][: len(at)] == at != each["loc"] for each in found):
            continue
        words = _words(problem)
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
        problems.append(f"{place}: {words[:1].lower()}{words[1:]}" if place else words)
    return "; ".join(problems)


def _words(problem: Any) -> str:
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return _about_key(problem["loc"])
    if kind == "string_type":
        return "has to be a text" if isinstance(given, list | dict) else "has to be a text: put it in quotes"
    if kind == "string_unicode":  # Python's surrogates, for bytes of a path that its encoding does not have.
        encoding = sys.getfilesystemencoding()
        advice = "rename it" if encoding == "utf-8" else "set PYTHONUTF8=1"
        return f"has bytes that are not {encoding}, in which paths are read here: {advice}"
    return _WORDS.get(kind) or str(problem["msg"]).removeprefix("Value error, ")


def _about_key(place: tuple[int | str, ...]) -> str:
    """What is said of a key that is none, at the top, of a model or of a decorator."""
    kinds: dict[int, type[BaseModel]] = {1: _File, 3: ModelConfig}
    kind = kinds.get(len(place), Decorator)
    key, names = str(place[-1]), [*kind.model_fields]
    aliases = {name for each in kind.model_fields.values() for name in _aliases(each.validation_alias)}
    if key in aliases:
        return f"means the same as {', '.join(sorted(aliases - {key}))}, which is there too"
    near = difflib.get_close_matches(key, names, 1)
    return f"there is no such key; did you mean {near[0]}?" if near else f"there is no such key, but {', '.join(names)}"


def _aliases(alias: Any) -> list[str]:
    return [str(each) for each in alias.choices] if isinstance(alias, AliasChoices) else []
