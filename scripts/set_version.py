"""Sets the version of both distributions, or checks it.

    python scripts/set_version.py 0.2.0            write the version into each file that has it
    python scripts/set_version.py --check          fail unless all places have the same one
    python scripts/set_version.py --check v0.2.0   fail unless it is the version of this tag, and in CHANGELOG.md

The server and the client are released together. Neither can read the other's files once they are built, so several
files have the version. Only this script writes it.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_ASSIGNMENT = re.compile(r'(?<=^__version__ = ")[^"]*(?="$)', re.MULTILINE)
_REQUIREMENT = re.compile(r'(?<="mlflow-grpc-client==)[^"]*(?=")')
_LABEL = re.compile(r'(?<=org\.opencontainers\.image\.version=")[^"]*(?=")')

PLACES = {
    "mlflow_grpc/__init__.py": _ASSIGNMENT,
    "client/mlflow_grpc_client/__init__.py": _ASSIGNMENT,
    "pyproject.toml": _REQUIREMENT,
    "Dockerfile": _LABEL,
    "mlflow_grpc/environments/Dockerfile": _LABEL,
}
"""The files that have the version, with the expression that finds it there exactly once."""

VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
"""A version as PEP 440 writes it, of three numbers: 1.2.3, or 1.2.3rc1 for one that is not final."""


def versions(root: Path = ROOT) -> dict[str, str]:
    """Returns the version in each file.

    Raises:
        ValueError: A file does not have it exactly once.
    """
    return {name: match.group() for name, _, match in _matches(root)}


def set_version(version: str, root: Path = ROOT) -> None:
    """Writes the version into each file.

    Raises:
        ValueError: It is not a version, or a file does not have one exactly once; no file is changed then.

    """
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not a version: write three numbers, such as 0.2.0 or 0.2.0rc1")
    for name, text, match in list(_matches(root)):
        (root / name).write_text(text[: match.start()] + version + text[match.end() :], encoding="utf-8")


def problems(tag: str | None, root: Path = ROOT) -> list[str]:
    """Returns a line for each problem with the version.

    Args:
        tag: The tag of a release, such as v0.2.0; None to compare the files with each other only.
        root: The top of the repository.
    """
    current = versions(root)
    expected = current["mlflow_grpc/__init__.py"] if tag is None else tag.removeprefix("v")
    different = {name: version for name, version in current.items() if version != expected}
    lines = [f"{name} has version {version}, not {expected}" for name, version in different.items()]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = rf"^## \[{re.escape(expected)}\] - \d{{4}}-\d\d-\d\d$"
    if tag is not None and not re.search(section, changelog, re.MULTILINE):
        lines.append(f"CHANGELOG.md has no section '## [{expected}] - YYYY-MM-DD'")
    return lines


def _matches(root: Path) -> Iterator[tuple[str, str, re.Match[str]]]:
    for name, pattern in PLACES.items():
        text = (root / name).read_text(encoding="utf-8")
        matches = list(pattern.finditer(text))
        if len(matches) != 1:
            raise ValueError(f"{name} has {len(matches)} versions, not one")
        yield name, text, matches[0]


def main() -> None:
    """Reads the command line, and exits with 1 if there is a problem."""
    parser = argparse.ArgumentParser(description="Set the version of both distributions, or check it.")
    parser.add_argument("--check", action="store_true", help="compare the version in all files; change none")
    parser.add_argument("version", nargs="?", help="the new version, or with --check the tag of a release")
    arguments = parser.parse_args()
    if arguments.version is None and not arguments.check:
        parser.error("name the new version, or use --check")
    try:
        lines = problems(arguments.version) if arguments.check else []
        if not arguments.check:
            set_version(arguments.version)
    except ValueError as error:
        parser.error(str(error))
    if lines:
        sys.exit("\n".join([*lines, "`python scripts/set_version.py VERSION` writes it everywhere."]))


if __name__ == "__main__":
    main()
