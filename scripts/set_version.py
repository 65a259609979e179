"""Sets the version of both distributions, or checks it.

    python scripts/set_version.py 0.2.0            write the version into each file that has it
    python scripts/set_version.py 0.2.0 --date 2026-01-31   and make a section of it from CHANGELOG.md's Unreleased
    python scripts/set_version.py --check          fail unless all places have the same one
    python scripts/set_version.py --check v0.2.0   fail unless it is the version of this tag, and in CHANGELOG.md

The server and the client are released together. Neither can read the other's files once they are built, so several
files have the version. Only this script writes it.
"""

import argparse
import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_ASSIGNMENT = re.compile(r'(?<=^__version__ = ")[^"]*(?="$)', re.MULTILINE)
_REQUIREMENT = re.compile(r'(?<="mlflow-grpc-client==)[^"]*(?=")')
_CITATION = re.compile(r"(?<=^version: )\S*$", re.MULTILINE)
_IMAGE = re.compile(r"(?<=mlflow-grpc:)\d[\w.]*\w|(?<=mlflow-grpc-ray:)\d[\w.]*\w")
_UNRELEASED = re.compile(r"^## \[Unreleased\]\n+(?!## )(?=.)", re.MULTILINE)
_LABEL = re.compile(r'(?<=org\.opencontainers\.image\.version=")[^"]*(?=")')

PLACES = {
    "mlflow_grpc/__init__.py": _ASSIGNMENT,
    "client/mlflow_grpc_client/__init__.py": _ASSIGNMENT,
    "pyproject.toml": _REQUIREMENT,
    "CITATION.cff": _CITATION,
    "examples/cron/cronjob.yaml": _IMAGE,
    "Dockerfile": _LABEL,
    "mlflow_grpc/environments/Dockerfile": _LABEL,
    **dict.fromkeys(
        ("deploy/kserve/runtime.yaml", "deploy/ray/rayservice.yaml", "docs/kserve.md", "docs/ray.md"), _IMAGE
    ),
}
"""The files that have the version, with the expression that finds it there, once or more often."""

VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
"""A version as PEP 440 writes it, of three numbers: 1.2.3, or 1.2.3rc1 for one that is not final."""


def versions(root: Path = ROOT) -> dict[str, str]:
    """Returns the version in each file.

    Raises:
        ValueError: A file does not have it, or has different ones.
    """
    return {name: version for name, _, version in _files(root)}


def set_version(version: str, root: Path = ROOT) -> None:
    """Writes the version into each file.

    Raises:
        ValueError: It is not a version, or a file does not have one, or has different ones; no file is changed then.

    """
    _check_form(version)
    for name, text, _ in list(_files(root)):
        (root / name).write_text(PLACES[name].sub(version, text), encoding="utf-8")


def date_changelog(version: str, date: str, root: Path = ROOT) -> None:
    """Makes a section of a version from the section Unreleased of CHANGELOG.md, and leaves an empty one above it.

    Args:
        version: The version that is released.
        date: Its day, in ISO 8601.
        root: The top of the repository.

    Raises:
        ValueError: The day is not a date, or there is no section Unreleased, or the version has a section already.

    """
    _check_form(version)
    datetime.date.fromisoformat(date)
    path = root / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8")
    if f"## [{version}]" in text:
        raise ValueError(f"CHANGELOG.md has a section for {version} already")
    if not _UNRELEASED.search(text):
        raise ValueError("CHANGELOG.md has no section '## [Unreleased]' with changes in it")
    path.write_text(_UNRELEASED.sub(f"## [Unreleased]\n\n## [{version}] - {date}\n\n", text), encoding="utf-8")


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


def _check_form(version: str) -> None:
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not a version: write three numbers, such as 0.2.0 or 0.2.0rc1")


def _files(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yields the name, the text and the version of each file."""
    for name, pattern in PLACES.items():
        text = (root / name).read_text(encoding="utf-8")
        different = set(pattern.findall(text))
        if len(different) != 1:
            raise ValueError(f"{name} has {len(different)} versions, not one")
        yield name, text, different.pop()


def main() -> None:
    """Reads the command line, and exits with 1 if there is a problem."""
    parser = argparse.ArgumentParser(description="Set the version of both distributions, or check it.")
    parser.add_argument("--check", action="store_true", help="compare the version in all files; change none")
    parser.add_argument("version", nargs="?", help="the new version, or with --check the tag of a release")
    parser.add_argument("--date", help="the day of the release, for its section in CHANGELOG.md: 2026-01-31")
    arguments = parser.parse_args()
    if arguments.check and arguments.date is not None:
        parser.error("--date is for a new version; --check changes nothing")
    if arguments.version is None and not arguments.check:
        parser.error("name the new version, or use --check")
    try:
        lines = problems(arguments.version) if arguments.check else []
        if arguments.date is not None:
            date_changelog(arguments.version, arguments.date)
        if not arguments.check:
            set_version(arguments.version)
    except ValueError as error:
        parser.error(str(error))
    if lines:
        sys.exit("\n".join([*lines, "`python scripts/set_version.py VERSION` writes it everywhere."]))


if __name__ == "__main__":
    main()
