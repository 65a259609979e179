"""How a setting is declared: its flags, environment names, default and help text."""

from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices, Field


@dataclass(frozen=True)
class Flag:
    """The command line spellings of a setting; a switch has a spelling that turns it off too."""

    names: tuple[str, ...]
    off: str | None = None
    metavar: str | None = None


def setting(default: Any, *env: str, text: str, **limits: Any) -> Any:
    """Declares a setting by its default, environment names, help text and pydantic's limits."""
    return Field(default, validation_alias=AliasChoices(*env), description=text, **limits)
