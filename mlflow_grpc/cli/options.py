"""Options of commands, made from the declarations of the settings.

Rule of this module: a setting is declared in `mlflow_grpc.settings` and nowhere else.
"""

from collections.abc import Container
from enum import StrEnum

import click
from pydantic.fields import FieldInfo

from mlflow_grpc import declarations, settings


def setting_options(names: Container[str] | None = None) -> list[click.Option]:
    """Returns the options of settings, in the order of their declaration.

    Args:
        names: The settings, by field name; all settings if None.

    """
    return [_option(name, info) for name, info in settings.fields() if names is None or name in names]


def output_option() -> click.Option:
    """Returns the option for the file that a command writes."""
    return click.Option(
        ["-o", "--output"], default="-", metavar="FILE", help="The file to write; - is stdout.", show_default=True
    )


def default_text(info: FieldInfo) -> str:
    """Formats the default of a setting as a user would write it."""
    value = info.default
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, bool):
        return "on" if value else "off"
    if info.default_factory is declarations.default_threads:
        return "min(32, cores + 4)"
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option(name: str, info: FieldInfo) -> click.Option:
    """Makes the option of a setting from its declaration."""
    flag, legal = declarations.flag(info), _choices(info)
    default = default_text(info)
    note = f"default: {default}" if default else "no default"
    return click.Option(
        [name, *([f"{flag.names[0]}/{flag.off}"] if flag.off else flag.names)],
        default=None,
        metavar=flag.metavar or (f"[{'|'.join(legal)}]" if legal else None),
        help=f"{info.description}  [env: {', '.join(declarations.env_names(info))}; {note}]",
    )


def _choices(info: FieldInfo) -> list[str] | None:
    """Returns the legal values of a setting with an enum type, otherwise None."""
    annotation = info.annotation
    return (
        [item.value for item in annotation]
        if isinstance(annotation, type) and issubclass(annotation, StrEnum)
        else None
    )
