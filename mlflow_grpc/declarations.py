"""Declarations of settings: flags, environment names, default and help text."""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices, Field
from pydantic.fields import FieldInfo

EXAMPLE = '{"key": "value"}'
"""A JSON object for error messages."""


@dataclass(frozen=True)
class Flag:
    """The command line flags of a setting. A switch also has a flag that turns it off."""

    names: tuple[str, ...]
    off: str | None = None
    metavar: str | None = None


def default_threads() -> int:
    """Number of threads in MLflow's server, which uses asyncio's default executor: min(32, cores + 4)."""
    return min(32, (os.cpu_count() or 1) + 4)


def setting(default: Any, *env: str, text: str, **limits: Any) -> Any:
    """Declares a setting by its default, environment names, help text and pydantic's limits."""
    return Field(default, validation_alias=AliasChoices(*env), description=text, **limits)


def flag(info: FieldInfo) -> Flag:
    """Returns the command line flags of a setting."""
    return next(item for item in info.metadata if isinstance(item, Flag))


def env_names(info: FieldInfo) -> list[str]:
    """Returns the environment names of a setting, in order of precedence."""
    alias = info.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def duration_s(value: Any) -> Any:
    """Returns a duration such as `30s`, `5m` or `1h` as a number of seconds; other values unchanged, for pydantic."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([smh])\s*", value) if isinstance(value, str) else None
    if match is None:
        return value
    try:
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    except ValueError:
        return value


def json_object(text: str) -> dict[str, Any]:
    """Parses a setting that is a JSON object.

    The object may be in single quotes, or inside a JSON string.

    Raises:
        ValueError: The text is not a JSON object.

    """
    # `docker run --env-file` keeps the quotes that a shell would remove.
    text = text.strip()
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
    try:
        decoded = json.loads(text)
        decoded = json.loads(decoded) if isinstance(decoded, str) else decoded
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be a JSON object, such as {EXAMPLE}; {error}") from None
    if not isinstance(decoded, dict):
        problem = f"must be a JSON object, such as {EXAMPLE}; it is a JSON {_json_type(decoded)}"
        raise ValueError(problem)  # noqa: TRY004 - pydantic's protocol
    return decoded


def _json_type(value: Any) -> str:
    names: dict[type, str] = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
