"""Prints the table in docs/settings.md from the declarations of the settings (`python scripts/settings_table.py`)."""

from mlflow_grpc import declarations, settings
from mlflow_grpc.cli.options import default_text


def rows() -> list[str]:
    """Returns one Markdown row per setting."""
    made = []
    for _, info in settings.fields():
        flag = declarations.flag(info)
        spellings = ", ".join(f"`{name}`" for name in (*flag.names, *([flag.off] if flag.off else [])))
        names = ", ".join(f"`{name}`" for name in declarations.env_names(info))
        default = default_text(info)
        made.append(f"| {spellings} | {names} | {f'`{default}`' if default else ''} | {info.description} |")
    return made


if __name__ == "__main__":
    print("\n".join(rows()))
