"""The configuration file of the package rest-model-service (`rest_config.yaml`), read as that package reads it.

Rule of this module: it converts the content to our own format, which checks the values. The package's classes
(`rest_model_service.configuration`, 0.1.0 to 0.6.0) ignore unknown keys, so such keys are warnings and never errors.
"""

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

_REST_INTERFACE_KEYS = frozenset({"service_title", "version", "description", "metrics"})
"""Keys for OpenAPI and for the package's own metrics."""

_FILE_KEYS = _REST_INTERFACE_KEYS | {"models", "logging"}
_MODEL_KEYS = frozenset({"class_path", "create_endpoint", "configuration", "decorators"})
_DECORATOR_KEYS = frozenset({"class_path", "configuration"})

_OBSOLETE = {
    "qualified_name": "is obsolete since rest-model-service 0.5.0 and has no effect; callers use the name in the class"
}
"""Keys of a model that were required up to 0.4.1, where the name had to equal that of the class."""

_NONE: Mapping[str, str] = MappingProxyType({})


def is_rest_config(content: dict[str, Any], own_keys: Collection[str]) -> bool:
    """Returns True if a file has keys of rest-model-service, and no model keys that only our own format has.

    Args:
        content: The content of the file.
        own_keys: Keys of a model in our own format.

    """
    if "access" in content:  # Rules that were ignored, with a warning, would leave a server open.
        return False
    only_ours = set(own_keys) - _MODEL_KEYS
    models = [model for model in _items(content.get("models")) if isinstance(model, dict)]
    if any(only_ours & model.keys() for model in models):
        return False
    return bool(_REST_INTERFACE_KEYS & content.keys()) or any(
        model.keys() & {"create_endpoint", *_OBSOLETE} for model in models
    )


def to_configuration(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Converts the content of a `rest_config.yaml` to our own format.

    Returns:
        The content, and a warning with its path for each key that is unknown or obsolete.

    """
    warnings: list[str] = []
    converted = _without_unknown(content, _FILE_KEYS, "", warnings)
    converted = {
        key: value
        for key, value in converted.items()
        if key not in _REST_INTERFACE_KEYS or (key != "metrics" and isinstance(value, str))
    }
    if isinstance(converted.get("models"), list):
        converted["models"] = [
            _model(model, f"models[{index}].", warnings) for index, model in enumerate(converted["models"])
        ]
    return converted, warnings


def _model(model: Any, prefix: str, warnings: list[str]) -> Any:
    converted = _without_unknown(model, _MODEL_KEYS, prefix, warnings, obsolete=_OBSOLETE)
    if isinstance(converted, dict) and isinstance(converted.get("decorators"), list):
        converted["decorators"] = [
            _without_unknown(decorator, _DECORATOR_KEYS, f"{prefix}decorators[{index}].", warnings)
            for index, decorator in enumerate(converted["decorators"])
        ]
    return converted


def _without_unknown(
    mapping: Any, keys: frozenset[str], prefix: str, warnings: list[str], obsolete: Mapping[str, str] = _NONE
) -> Any:
    if not isinstance(mapping, dict):
        return mapping
    warnings += [f"{prefix}{key} {obsolete.get(key) or _unknown(key, keys)}" for key in mapping if key not in keys]
    return {key: value for key, value in mapping.items() if key in keys}


def _unknown(key: Any, keys: frozenset[str]) -> str:
    near = difflib.get_close_matches(str(key), sorted(keys), 1)
    return "is not a key of rest-model-service and has no effect" + (f"; did you mean {near[0]}?" if near else "")


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
