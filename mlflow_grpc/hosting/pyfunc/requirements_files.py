"""Reader of a model's requirements files and of the files that they name.

Rule of this module: it is the only reader of such files, and every error in one is a StartError with the file and the
line. MLflow and pip parse the requirements.
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
"""Content that pip supports only in a file: options such as --index-url, and environment variables."""


@dataclass(frozen=True)
class Line:
    """A line of a requirements file and its location."""

    text: str
    location: str
    """Location for errors, such as `requirements.txt, line 3`."""


def read_lines(file: Path) -> list[Line]:
    """Returns the lines of a requirements file and of the files that it names with `-r` and `-c`.

    Raises:
        StartError: A file cannot be read, or includes itself.

    """
    return list(_of_file(file, "", ()))


def lines_of(texts: Iterable[str], directory: Path) -> list[Line]:
    """Returns the lines of requirements that are not in a requirements file, and of the files that they name.

    Args:
        texts: The lines, such as the dependencies in `python_env.yaml`.
        directory: Base directory of relative file names.

    """
    return list(_expanded((Line(text, f"the requirement {text!r}") for text in texts), directory, ()))


def requirements_of(texts: Sequence[str] | Path, directory: Path) -> list[tuple[str, bool]]:
    """Returns the requirements that MLflow reads from lines or a file; the boolean is True for a constraint.

    Args:
        texts: Lines, or a file with lines.
        directory: Base directory of relative file names.

    Raises:
        StartError: The requirements, or a file that they name, cannot be read.

    """
    if isinstance(texts, Path):
        texts = [line.text for line in read_lines(texts) if line.location.startswith(f"{texts.resolve()},")]
    else:
        lines_of(texts, directory)
    try:
        parsed = internals.parse_requirements(list(texts), is_constraint=False, base_dir=str(directory))
        return [(item.req_str, item.is_constraint) for item in parsed]
    except Exception as error:
        raise StartError(f"cannot read the requirements of the model at {directory}: {one_line(error)}") from error


def needs_file(lines: Iterable[Line]) -> bool:
    """Returns True if pip has to read the lines from their file, because they have options or variables."""
    return any(_OPTION_OR_VARIABLE.search(line.text) and not _FILE_REFERENCE.match(line.text) for line in lines)


def _of_file(file: Path, where: str, within: tuple[Path, ...]) -> Iterator[Line]:
    file = file.resolve()
    if file in within:
        raise StartError(f"cannot read the model's requirements: {where}, includes {file}, which in turn includes it")
    try:
        texts = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # ValueError if the file is not UTF-8.
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
            yield from _of_file(directory / reference[1], line.location, within)
