"""Errors for refused payloads, in the form that callers and the log get.

Rule of this module: it writes errors and searches for no reason. The log gets no name that the caller chose.
"""

from collections.abc import Sequence

from mlflow.exceptions import MlflowException

from mlflow_grpc.errors import FieldViolation, InvalidPayload, Status
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.model_errors import status_of_error_code

MAX_VIOLATIONS = 16
"""Maximum number of violations in an error."""


def refusal(
    text: str,
    cause: BaseException | None,
    violations: Sequence[FieldViolation] = (),
    *,
    caller_names: str = "",
    lists_violations: bool = True,
) -> InvalidPayload:
    """Returns the error for a refused payload.

    Args:
        text: Sentences about the fault.
        cause: The exception that MLflow raised.
        violations: The fields at fault.
        caller_names: A sentence with names that the caller chose, which is left out of the log.
        lists_violations: True if the text lists the violations; the details of the error always have them.

    """
    reason, error_class = "BAD_REQUEST", None
    if isinstance(cause, MlflowException):
        error_class = internals.error_class(cause)
        is_invalid_argument = status_of_error_code(cause.error_code) is Status.INVALID_ARGUMENT
        # MLflow reports some bad payloads as its own internal errors, such as bad base64 for a type hint.
        reason = cause.error_code if is_invalid_argument else "INVALID_PARAMETER_VALUE"
    if violations and internals.hides_schema_details():
        return InvalidPayload("The payload does not fit the model.", reason=reason, error_class=error_class)
    reported = tuple(violations[:MAX_VIOLATIONS])
    if reported and lists_violations:
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in reported)
        more = f"; and {len(violations) - len(reported)} more" if len(violations) > len(reported) else ""
        text = f"{text} {listed}{more}."
    return InvalidPayload(
        f"{text}{caller_names}", reason=reason, error_class=error_class, violations=reported, logged=text
    )


def signature_refusal(
    text: str,
    cause: BaseException | None,
    violations: Sequence[FieldViolation] = (),
    *,
    caller_names: str = "",
    lists_violations: bool = True,
) -> InvalidPayload:
    """Returns the error of `refusal` for a text with details of the signature, which MLflow can be set to hide."""
    if internals.hides_schema_details():
        return refusal("The payload does not fit the model.", cause, violations)
    return refusal(text, cause, violations, caller_names=caller_names, lists_violations=lists_violations)
