"""Reasons of refusals, with the errors that callers get.

Rule of this module: the texts are fixed, so that nothing of a token gets into an error, a log line or a metric, and so
that answers to a flood of refused calls can be made once.
"""

from enum import StrEnum

from mlflow_grpc.errors import Unauthenticated

ADVICE = "Send it in the metadata or header authorization: Bearer TOKEN."


class Refusal(StrEnum):
    """Reasons, as metrics and `error_class` of an error have them."""

    NO_CREDENTIALS = "NO_CREDENTIALS"
    NOT_BEARER = "NOT_BEARER"
    SEVERAL_AUTHORIZATIONS = "SEVERAL_AUTHORIZATIONS"
    UNKNOWN_TOKEN = "UNKNOWN_TOKEN"  # noqa: S105 - a reason, not a password
    INVALID_JWT = "INVALID_JWT"
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    WRONG_CERTIFICATE = "WRONG_CERTIFICATE"
    NO_KEYS = "NO_KEYS"
    NOT_CHECKED = "NOT_CHECKED"
    NOT_PERMITTED = "NOT_PERMITTED"


_MESSAGES = {
    Refusal.NO_CREDENTIALS: f"The call has no token, and this server requires one. {ADVICE}",
    Refusal.NOT_BEARER: f"The call has an authorization that is not a bearer token. {ADVICE}",
    Refusal.SEVERAL_AUTHORIZATIONS: "The call has several authorizations, of which a proxy may have checked another "
    "one than this server would. Send one.",
    Refusal.UNKNOWN_TOKEN: "The token of the call is not one of this server. Ask its operator for a valid one.",
    Refusal.INVALID_JWT: "The JWT of the call is not valid here: its signature, algorithm, issuer, audience or subject "
    "is not one that this server accepts. Get one for this server from the identity provider.",
    Refusal.EXPIRED: "The JWT of the call has expired. Get a new one from the identity provider.",
    Refusal.NOT_YET_VALID: "The JWT of the call is not valid yet (nbf). Compare the clocks of the server and of the "
    "identity provider.",
    Refusal.UNKNOWN_KEY: "The JWT of the call is signed with a key that this server does not know. If the identity "
    "provider has just changed its keys, try again in half a minute.",
    Refusal.WRONG_CERTIFICATE: "The certificate of the client has no name that may call this server. Use one with a "
    "subject alternative name that the server's operator allows.",
}


class Refused(Exception):
    """A caller is not recognized. `Gate` counts it and turns it into the error for the caller."""

    def __init__(self, refusal: Refusal) -> None:
        """Takes the reason."""
        super().__init__(refusal.value)
        self.refusal = refusal


def error_of(refusal: Refusal) -> Unauthenticated:
    """Returns the error for a caller that is not recognized."""
    return Unauthenticated(_MESSAGES[refusal], error_class=refusal.value)
