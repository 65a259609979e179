"""The token that a client sends with its calls.

Rule of this module: a token goes over an encrypted connection, or stays on this machine, unless the caller says
otherwise. It is in no text for people: no error, no `repr`.
"""

import ipaddress
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _mlflow_grpc_protocol.metadata import (
    AUTHORIZATION_KEY,
    TOKEN_FILE_VARIABLE,
    TOKEN_OVER_PLAINTEXT_VARIABLE,
    TOKEN_VARIABLE,
)

from mlflow_grpc_client._connection.targets import Target
from mlflow_grpc_client._options import Metadata

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that returns the current one; for an AsyncClient it may be asynchronous."""

REREAD_S = 5.0
"""Time for which the content of a file is used, in seconds."""

_LOCAL_SCHEMES = ("unix:", "unix-abstract:")

_DNS = re.compile(r"dns:(?://[^/]*/)?(\[[^\]]*\]|[^:]+)")


@dataclass
class TokenFile:
    """A token in a file that may change, such as that of a Kubernetes service account: `token=TokenFile(path)`.

    It can be pickled, and is read where it is used.
    """

    path: Path | str
    _read: tuple[str, float] = field(default=("", 0.0), init=False, repr=False, compare=False)

    def __call__(self) -> str:
        """Returns the token.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is empty.

        """
        token, until = self._read
        if time.monotonic() < until:
            return token
        token = Path(self.path).read_text(encoding="utf-8").strip()
        if not token:
            raise ValueError(f"the file {self.path} of the token is empty")
        self._read = (token, time.monotonic() + REREAD_S)
        return token

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile, (self.path,)


@dataclass(frozen=True)
class TokenText:
    """A token that does not change."""

    text: str = field(repr=False)

    def __call__(self) -> str:
        """Returns the token."""
        return self.text


def checked_token(
    token: Any, target: Target, *, encrypted: bool, over_plaintext: bool | None
) -> Callable[[], Any] | None:
    """Returns what gives the token of each call; None if calls have none.

    Args:
        token: A `Token`; None for that of the environment, an empty text for none.
        target: The servers.
        encrypted: True if connections are encrypted.
        over_plaintext: True to send a token without encryption to other machines too; None for what the environment
            says.

    Raises:
        ValueError: It would be sent without encryption to another machine, or is not one.
        TypeError: It is neither a text nor a function.

    """
    if token is None:
        token = _of_environment()
    if token is None or token == "":
        return None
    if over_plaintext is None:
        over_plaintext = os.environ.get(TOKEN_OVER_PLAINTEXT_VARIABLE, "").lower() in ("1", "true")
    if not encrypted and not over_plaintext and not _is_local(target):
        raise ValueError(
            f"the token would be sent to {target.text} without encryption, where others can read it: turn on TLS (tls, "
            "--tls, grpcs://), or give token_over_plaintext=True (--token-over-plaintext) if the network is safe"
        )
    if isinstance(token, str):
        authorization(token)
        return TokenText(token)
    if not callable(token):
        raise TypeError(f"token is a text or a function that returns one; not {type(token).__name__}")
    function: Callable[[], Any] = token
    return function


def authorization(token: Any) -> str:
    """Returns the value of the metadata key `authorization` for a token.

    Raises:
        TypeError: The token is not a text.
        ValueError: It has characters that no token has.

    """
    if not isinstance(token, str):
        raise TypeError(
            f"the function of the token returned {type(token).__name__}, not a text; only an AsyncClient can await"
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError(
            "the token is empty, or has spaces or characters other than printable ASCII: give it without `Bearer`"
        )
    return f"Bearer {token}"


def has_authorization(metadata: Metadata) -> bool:
    """Returns True if the metadata of a call brings its own authorization, which replaces the token."""
    return any(key == AUTHORIZATION_KEY for key, _ in metadata)


def _of_environment() -> Any:
    if token := os.environ.get(TOKEN_VARIABLE):
        return token
    path = os.environ.get(TOKEN_FILE_VARIABLE)
    return TokenFile(path) if path else None


def _is_local(target: Target) -> bool:
    """Returns True if a target is on this machine. Names other than localhost count as other machines."""
    if target.name.startswith(_LOCAL_SCHEMES):
        return True
    hosts = [host for host, _ in target.hosts]
    if not hosts and (match := _DNS.fullmatch(target.name.rpartition(":")[0]) or _DNS.fullmatch(target.name)):
        hosts = [match[1].strip("[]")]
    return bool(hosts) and all(map(_is_loopback, hosts))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
