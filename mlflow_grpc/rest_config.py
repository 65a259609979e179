"""The configuration file of the package rest-model-service (`rest_config.yaml`), read as that package reads it.

Rule of this module: it makes content for our own format of it and checks nothing; what is wrong with a value is said
there. The package's classes (`rest_model_service.configuration`, 0.1.0 to 0.6.0) ignore keys that they do not have, so
such keys are warnings here and never errors.
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_OF_REST_INTERFACE = frozenset({"service_title", "version", "description", "metrics"})
"""Keys of the file about OpenAPI and the package's own metrics."""

_FILE_KEYS = _OF_REST_INTERFACE | {"models", "logging"}
_MODEL_KEYS = frozenset({"class_path", "create_endpoint", "configuration", "decorators"})
_DECORATOR_KEYS = frozenset({"class_path", "configuration"})

_OBSOLETE = {
    "qualified_name": "is obsolete since rest-model-service 0.5.0 and has no effect; callers use the name in the class"
}
"""Keys of a model that had to be there up to 0.4.1, where the name had to be the one that the class gives."""

_NONE: Mapping[str, str] = MappingProxyType({})

_ONLY_OURS = frozenset(
    {"uri", "name", "version", "batching", "payload", "default", "on_error", "endpoint", "preprocess", "postprocess"}
)
"""Keys of a model that no version of the package has."""


def is_rest_config(content: dict[str, Any]) -> bool:
    """Whether a file has keys that only rest-model-service has, and none of a model that only ours has."""
    models = [model for model in _items(content.get("models")) if isinstance(model, dict)]
    if any(_ONLY_OURS & model.keys() for model in models):
        return False
    return bool(_OF_REST_INTERFACE & content.keys()) or any(
        model.keys() & {"create_endpoint", *_OBSOLETE} for model in models
    )


def as_own(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The content of a `rest_config.yaml` as that of a file of ours.

    Returns:
        The content, and a warning for each key that is unknown or obsolete, with its place.

    """
    warnings: list[str] = []
    own = _without_unknown(content, _FILE_KEYS, "", warnings)
    own = {key: value for key, value in own.items() if key not in _OF_REST_INTERFACE}
    if isinstance(own.get("models"), list):
        own["models"] = [_model(model, f"models[{index}].", warnings) for index, model in enumerate(own["models"])]
    return own, warnings


def _model(model: Any, prefix: str, warnings: list[str]) -> Any:
    own = _without_unknown(model, _MODEL_KEYS, prefix, warnings, obsolete=_OBSOLETE)
    if isinstance(own, dict) and isinstance(own.get("decorators"), list):
        own["decorators"] = [
            _without_unknown(decorator, _DECORATOR_KEYS, f"{prefix}decorators[{index}].", warnings)
            for index, decorator in enumerate(own["decorators"])
        ]
    return own


def _without_unknown(
    mapping: Any, keys: frozenset[str], prefix: str, warnings: list[str], obsolete: Mapping[str, str] = _NONE
) -> Any:
    if not isinstance(mapping, dict):
        return mapping
    warnings += [f"{prefix}{key} {obsolete.get(key) or _unknown(key, keys)}" for key in mapping if key not in keys]
    return {key: value for key, value in mapping.items() if key in keys}


def _unknown(key: Any, keys: frozenset[str]) -> str:
    near = difflib.get_close_matches(str(key), sorted(keys), 1)
    return "is no key of rest-model-service and has no effect" + (f"; did you mean {near[0]}?" if near else "")


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
