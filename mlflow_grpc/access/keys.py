"""The public keys of an identity provider (JWKS, RFC 7517), from a URL or a file.

Rule of this module: keys are fetched in a thread of their own, and a call only looks at those that are there. The last
valid ones stay if the provider is away or answers something else. Only asymmetric keys count: a symmetric key in a
public document would let anyone sign.
"""

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from mlflow_grpc.naming import without_secrets
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.polling import LOOK_INTERVAL_S

logger = get_logger(__name__)

FETCH_INTERVAL_S, RETRY_INTERVAL_S = 300.0, 10.0
"""Time between two fetches from a URL, and the time after a fetch that failed, in seconds. PyJWT's client keeps keys
for 300 s too."""

COOLDOWN_S = 30.0
"""Minimum time between two fetches that an unknown key causes, in seconds."""

FETCH_LIMIT_S = 10.0
"""Maximum duration of a fetch, in seconds."""

MAX_BYTES, MAX_KEYS = 1024 * 1024, 1000

MIN_RSA_BITS = 2048

OF_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
OF_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA", "Ed448": "EdDSA"}

ALGORITHMS = frozenset((*OF_RSA, *OF_CURVE.values()))
"""The algorithms that a JWT may have."""

Keys = Mapping[tuple[str | None, str], Any]
"""Keys by their id (kid) and algorithm. A key without an id has None."""


def parse(data: bytes) -> Keys:
    """Returns the usable keys of a JWKS document.

    Raises:
        ValueError: It is not such a document, or has no usable key.

    """
    try:
        listed = json.loads(data)["keys"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("it is not a JSON object with the list keys (JWKS)") from None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"keys is not a list of at most {MAX_KEYS} keys")
    keys: dict[tuple[str | None, str], Any] = {}
    for described in listed:
        if not isinstance(described, dict) or described.get("use", "sig") != "sig":
            continue
        for algorithm in _algorithms(described):
            try:
                key = jwt.PyJWK(described, algorithm=algorithm).key
            except (PyJWTError, ValueError, TypeError, KeyError):
                continue
            if getattr(key, "key_size", MIN_RSA_BITS) < MIN_RSA_BITS and algorithm in OF_RSA:
                continue
            kid = described.get("kid")
            keys[kid if isinstance(kid, str) else None, algorithm] = key
    if not keys:
        raise ValueError("it has no key for RSA (of 2048 bits or more), ECDSA or EdDSA signatures")
    return keys


def _algorithms(described: dict[str, Any]) -> tuple[str, ...]:
    match described:
        case {"kty": "RSA"}:
            possible: tuple[str, ...] = OF_RSA
        case {"kty": "EC" | "OKP", "crv": str(curve)} if curve in OF_CURVE:
            possible = (OF_CURVE[curve],)
        case _:
            return ()
    named = described.get("alg")
    return possible if named is None else tuple(name for name in possible if name == named)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which could lead to a server without encryption."""

    def redirect_request(self, *_: Any) -> None:
        """Follows none."""


class KeySource:
    """Where the keys come from."""

    def __init__(self, location: str) -> None:
        """Fetches nothing yet.

        Args:
            location: URL or file of the JWKS document.

        """
        self._location = location
        self._is_url = "://" in location
        self._shown = without_secrets(location)
        self._data = b""
        self._problem = ""
        self.keys: Keys | None = None
        """The last valid keys; None if there have not been any yet."""
        self.when_unknown: Callable[[], object] = lambda: None
        """Called if a JWT names a key that is not there."""

    def look(self) -> float:
        """Fetches the document, and takes its keys if they are valid; called in one thread.

        Returns:
            The time until the next look, in seconds.

        """
        try:
            data = self._fetch() if self._is_url else Path(self._location).read_bytes()
            if self.keys is None or data != self._data:
                self.keys = parse(data)
                self._data = data
                ids = sorted({kid or "(without an id)" for kid, _ in self.keys})
                logger.info("keys for JWTs from %s: %d", self._shown, len(ids))
        except HTTPException as error:  # Its texts have what the server sent.
            self._report(f"the server does not answer with HTTP ({type(error).__name__})")
            return RETRY_INTERVAL_S
        except (OSError, ValueError) as error:
            problem = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            self._report(str(problem))
            return RETRY_INTERVAL_S if self._is_url else LOOK_INTERVAL_S
        self._problem = ""
        return FETCH_INTERVAL_S if self._is_url else LOOK_INTERVAL_S

    def _report(self, problem: str) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        none_yet = "calls with a JWT get UNAVAILABLE until there are keys"
        consequence = none_yet if self.keys is None else "the previous keys stay valid"
        logger.error("the keys of JWTs from %s are not usable: %s; %s", self._shown, problem, consequence)

    def _fetch(self) -> bytes:
        """Returns the document; its server may neither be slow without limit nor send any amount."""
        until = time.monotonic() + FETCH_LIMIT_S
        data = bytearray()
        with urllib.request.build_opener(_NoRedirects).open(self._location, timeout=FETCH_LIMIT_S) as response:
            while chunk := response.read1(65_536):
                data += chunk
                if len(data) > MAX_BYTES:
                    raise ValueError(f"the document is larger than {MAX_BYTES} bytes")
                if time.monotonic() > until:
                    raise TimeoutError(f"it did not arrive within {FETCH_LIMIT_S:g} s")
        return bytes(data)
