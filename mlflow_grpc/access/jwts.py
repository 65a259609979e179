"""Callers with JWTs (RFC 7519) of an identity provider: the subject of a valid one is the caller's name.

Rule of this module: the algorithm comes from the provider's keys, never from the JWT alone, and is asymmetric. A JWT
needs exp, iss, aud and sub. What was checked is remembered for a short time, because a signature costs 60 to 110 us to
check and a lookup less than 1 us. Checks that bring nothing have a budget (`check_budget`); a JWT that was valid is
checked again without it.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from mlflow_grpc.access.check_budget import CheckBudget
from mlflow_grpc.access.keys import ALGORITHMS, Keys, KeySource
from mlflow_grpc.access.refusals import Refusal, Refused
from mlflow_grpc.access.tokens import is_name
from mlflow_grpc.errors import CallerNotChecked

REMEMBERED_S = 60.0
"""Maximum time for which the result of a check is remembered, in seconds."""

MAX_REMEMBERED = 10_000
"""Maximum number of results that are remembered, of valid and of invalid JWTs each."""

MAX_CHARACTERS = 16_384
"""Maximum length of a JWT."""

CLOCK_SKEW_S = 30.0
"""Time by which the clock of the provider may be ahead of this one (nbf), in seconds."""

FINAL = (Refusal.INVALID_JWT, Refusal.EXPIRED)
"""Refusals that the same JWT gets again, as long as the keys stay the same."""

NO_KEYS = "The server has not got the keys of the identity provider yet, so it can check no JWT. Try again later."

NOT_CHECKED = (
    "The server has no time to check this JWT, because it gets more invalid ones than it can check. Try again. A JWT "
    "that was valid before is not affected."
)

_OPTIONS: Any = {
    "require": ["exp", "iss", "aud", "sub"],
    # These are checked here, on the clock of the verifier.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class JwtVerifier:
    """Checks JWTs; used from one thread."""

    def __init__(
        self,
        issuer: str,
        audiences: Sequence[str],
        source: KeySource,
        now: Callable[[], float] = time.time,
        budget: CheckBudget | None = None,
    ) -> None:
        """Remembers nothing yet.

        Args:
            issuer: The issuer that a JWT must have.
            audiences: Audiences of which a JWT must have one.
            source: Has the keys.
            now: Returns the time in seconds since 1970.
            budget: Time for JWTs that turn out to be invalid; by default on the clocks of the machine.

        """
        self._budget = budget or CheckBudget()
        self._issuer, self._audiences = issuer, list(audiences)
        self._source, self._now = source, now
        self._keys: Keys | None = None
        self._callers: dict[bytes, tuple[str, float]] = {}  # With those that have to be checked again.
        self._refused: dict[bytes, tuple[Refusal, float]] = {}

    def caller(self, token: str, digest: bytes) -> str:
        """Returns the name of the caller with a JWT.

        Args:
            token: The JWT.
            digest: Its SHA-256.

        Raises:
            Refused: It is not valid.
            CallerNotChecked: There are no keys yet, or it has not been valid before and there is no time to check it.

        """
        keys, now = self._source.keys, self._now()
        if keys is None:
            raise CallerNotChecked(NO_KEYS, error_class=Refusal.NO_KEYS.value)
        if keys is not self._keys:  # A key may have been withdrawn, or a new one makes a JWT valid.
            self._keys = keys
            self._callers = {known: (name, -math.inf) for known, (name, _) in self._callers.items()}
            self._refused.clear()
        remembered = self._callers.get(digest)
        if remembered is not None and now < remembered[1]:
            return remembered[0]
        refused = self._refused.get(digest)
        if refused is not None and now < refused[1]:
            raise Refused(refused[0])
        if remembered is None and self._budget.is_spent:
            raise CallerNotChecked(NOT_CHECKED, error_class=Refusal.NOT_CHECKED.value)
        began = self._budget.used()
        try:
            name, expires_at = self._checked(token, keys, now)
        except Refused as error:
            self._budget.spend(began)
            if error.refusal in FINAL:
                _remember(self._refused, digest, (error.refusal, now + REMEMBERED_S))
            raise
        _remember(self._callers, digest, (name, min(expires_at, now + REMEMBERED_S)))
        return name

    def _checked(self, token: str, keys: Keys, now: float) -> tuple[str, float]:
        """Returns the subject of a JWT and the time at which it expires; raises Refused if it is not valid."""
        try:
            claims = self._verified(token, keys)
            expires_at, valid_from = _number(claims, "exp", math.nan), _number(claims, "nbf", 0.0)
        # PyJWT lets errors of Python through for some texts that are no JWTs.
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Refused(Refusal.INVALID_JWT) from None
        if not now < expires_at:
            raise Refused(Refusal.EXPIRED)
        if valid_from > now + CLOCK_SKEW_S:
            raise Refused(Refusal.NOT_YET_VALID)
        if not is_name(claims["sub"]):
            raise Refused(Refusal.INVALID_JWT)
        return claims["sub"], expires_at

    def _verified(self, token: str, keys: Keys) -> dict[str, Any]:
        """Returns the claims of a JWT with a valid signature, issuer and audience."""
        if len(token) > MAX_CHARACTERS:
            raise ValueError("it is too long")
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise ValueError("its algorithm is not one of a public key")
        key = _key_of(keys, kid, algorithm)
        if key is None:
            self._source.when_unknown()
            raise Refused(Refusal.UNKNOWN_KEY)
        return jwt.decode(
            token, key, algorithms=[algorithm], audience=self._audiences, issuer=self._issuer, options=_OPTIONS
        )


def _key_of(keys: Keys, kid: object, algorithm: str) -> Any:
    """Returns the key that a JWT names; for a JWT that names none, the key for its algorithm if there is only one."""
    if isinstance(kid, str):
        return keys.get((kid, algorithm))
    candidates = [key for (_, of_key), key in keys.items() if of_key == algorithm]
    return candidates[0] if len(candidates) == 1 else None


def _number(claims: dict[str, Any], name: str, default: float) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is not a number")
    return float(value)


def _remember(results: dict[bytes, Any], digest: bytes, result: Any) -> None:
    results.pop(digest, None)  # The first result is forgotten first, so a new one goes to the end.
    if len(results) >= MAX_REMEMBERED:
        del results[next(iter(results))]
    results[digest] = result
