"""Errors about the columns of a table.

Rule of this module: every error names the columns at fault and says what to do about them.
"""

from mlflow_grpc.errors import FieldViolation, InvalidPayload

_MAX_NAMES = 8
_MAX_CHARACTERS = 64


def refused(message: str, problems: dict[str, str]) -> InvalidPayload:
    """Returns an error with a message.

    Args:
        message: What is wrong, with the names of columns.
        problems: What is wrong with each column, by its name.

    """
    return InvalidPayload(
        message,
        reason="INVALID_PARAMETER_VALUE",
        violations=tuple(FieldViolation(name, problem) for name, problem in problems.items()),
        logged=message if not problems else "The columns of an Arrow table do not fit the model.",
    )


def columns_refused(names: list[str], problem: str) -> InvalidPayload:
    """Returns the error for columns with the same problem, as the end of a sentence about them."""
    return refused(f"{listed(names)} {problem}.", dict.fromkeys(names, problem))


def check(problems: dict[str, str]) -> None:
    """Raises InvalidPayload if a column has a problem.

    Args:
        problems: The problem of each column by its name, as the end of a sentence about it; empty for none.

    """
    problems = {name: problem for name, problem in problems.items() if problem}
    if problems:
        sentences = [f"{name[:_MAX_CHARACTERS]} {problem}" for name, problem in list(problems.items())[:_MAX_NAMES]]
        raise refused(f"The columns do not fit the model: {'; '.join(sentences)}.", problems)


def listed(names: list[str]) -> str:
    """Returns the first of several names, and the number of the others."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(name[:_MAX_CHARACTERS] for name in names[:_MAX_NAMES])}{more}"
