"""Refusals of requests whose tensors or parameters cannot be read.

Rule of this module: a refusal names the tensor or parameter at fault. Names are the caller's, so the log has none.
"""

from typing import NoReturn

from mlflow_grpc.errors import FieldViolation, InvalidPayload

MAX_CHARACTERS = 64
"""Maximum number of characters of a name that a refusal repeats."""


def shortened(name: str) -> str:
    """Returns the beginning of a name that a caller chose."""
    return name if len(name) <= MAX_CHARACTERS else f"{name[:MAX_CHARACTERS]}…"


def refuse_input(name: str, problem: str) -> NoReturn:
    """Raises InvalidPayload for an input tensor.

    Args:
        name: Name of the input.
        problem: What is wrong with it and what to send instead, without a period.
    """
    _refuse("The input", name, problem)


def refuse_output(name: str, problem: str) -> NoReturn:
    """Raises InvalidPayload for a requested output."""
    _refuse("The requested output", name, problem)


def refuse_parameter(name: str, problem: str) -> NoReturn:
    """Raises InvalidPayload for a parameter of the request."""
    _refuse("The parameter", name, problem, field=f"params.{shortened(name)}")


def refuse_request(problem: str) -> NoReturn:
    """Raises InvalidPayload for a request as a whole; the problem is a sentence."""
    raise InvalidPayload(problem, reason="INVALID_PARAMETER_VALUE")


def _refuse(subject: str, name: str, problem: str, *, field: str = "") -> NoReturn:
    raise InvalidPayload(
        f"{subject} {shortened(name)!r} cannot be used: {problem}.",
        reason="INVALID_PARAMETER_VALUE",
        violations=(FieldViolation(field or shortened(name), problem),),
        logged=f"{subject} cannot be used: {problem}.",
    )
