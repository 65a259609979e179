"""The lines of a model's requirements, in its requirements files and those that they name.

Rule of this module: it is the one reader of such files, and whatever is wrong with one is a StartError that names the
file and the line. What a requirement is, is for MLflow and pip to say.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.hosting.pyfunc import internals

_FILE_REFERENCE = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)(?:\s+|=)?(.+?)(?:\s+#.*)?\s*$")
_OPTION_OR_VARIABLE = re.compile(r"^\s*-(?!e\b|-editable\b)|\$\{[A-Z0-9_]+\}")
"""What pip reads in a file alone: options such as --index-url, and the environment variables that it fills in."""


@dataclass(frozen=True)
class Line:
    """A line, and where it stands."""

    text: str
    place: str
    """For errors, such as `requirements.txt, line 3`."""


def read_lines(file: Path) -> list[Line]:
    """The lines of a requirements file and of those that it names with `-r` and `-c`.

    Raises:
        StartError: One of them cannot be read, or names itself.

    """
    return list(_of_file(file, "", ()))


def lines_of(texts: Iterable[str], directory: Path) -> list[Line]:
    """The same for lines that stand in no file of their own, such as the dependencies in `python_env.yaml`.

    Args:
        texts: The lines.
        directory: What the names of files are relative to.

    """
    return list(_expanded((Line(text, f"the requirement {text!r}") for text in texts), directory, ()))


def requirements_of(texts: Sequence[str] | Path, directory: Path) -> list[tuple[str, bool]]:
    """Requirements one by one as MLflow reads them, each with whether it is a constraint only.

    Args:
        texts: Lines, or a file of them.
        directory: What the names of files are relative to.

    Raises:
        StartError: They, or a file that they name, cannot be read.

    """
    if isinstance(texts, Path):
        texts = [line.text for line in read_lines(texts) if line.place.startswith(f"{texts.resolve()},")]
    else:
        lines_of(texts, directory)
    try:
        parsed = internals.parse_requirements(list(texts), is_constraint=False, base_dir=str(directory))
        return [(item.req_str, item.is_constraint) for item in parsed]
    except Exception as error:
        raise StartError(f"cannot read the requirements of the model at {directory}: {one_line(error)}") from error


def needs_file(lines: Iterable[Line]) -> bool:
    """Whether pip has to read lines in their file, because options or variables stand in it."""
    return any(_OPTION_OR_VARIABLE.search(line.text) and not _FILE_REFERENCE.match(line.text) for line in lines)


def _of_file(file: Path, where: str, within: tuple[Path, ...]) -> Iterator[Line]:
    file = file.resolve()
    if file in within:
        raise StartError(f"cannot read the model's requirements: {where}, names {file}, which it is read from itself")
    try:
        texts = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # The latter if it is not UTF-8.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        named = f"{where}, names " if where else ""
        raise StartError(f"cannot read the model's requirements: {named}{file}: {reason}") from error
    lines = (Line(text, f"{file}, line {number}") for number, text in enumerate(texts, 1))
    yield from _expanded(lines, file.parent, (*within, file))


def _expanded(lines: Iterable[Line], directory: Path, within: tuple[Path, ...]) -> Iterator[Line]:
    for line in lines:
        yield line
        reference = _FILE_REFERENCE.match(line.text)
        if reference and "://" not in reference[1]:
            yield from _of_file(directory / reference[1], line.place, within)
