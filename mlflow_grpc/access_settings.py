"""The settings that say how callers are recognized, which `mlflow_grpc.settings.Settings` inherits.

Rule of this module: it declares and checks settings. `mlflow_grpc.access` has what follows from them.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, field_validator, model_validator

from mlflow_grpc.declarations import Flag, setting

_JWT = {
    "auth_jwt_issuer": "--auth-jwt-issuer",
    "auth_jwt_audience": "--auth-jwt-audience",
    "auth_jwt_jwks": "--auth-jwt-jwks",
}


class AccessSettings(BaseModel):
    """Settings of authentication. Without any of them, every caller may call."""

    auth_tokens: Annotated[Path | None, Flag(("--auth-tokens",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_AUTH_TOKENS",
        text="A file of callers: a name and the SHA-256 of a token on each line, as `mlflow-grpc token NAME` writes "
        "it. A changed file takes effect within 2 s. Calls without a valid token get UNAUTHENTICATED.",
    )
    auth_jwt_issuer: Annotated[str | None, Flag(("--auth-jwt-issuer",), metavar="URL")] = setting(
        None,
        "MLFLOW_GRPC_AUTH_JWT_ISSUER",
        text="The issuer (iss) of the JWTs that callers may send as tokens. Needs --auth-jwt-audience, "
        "--auth-jwt-jwks and the extra jwt.",
        min_length=1,
    )
    auth_jwt_audience: Annotated[str | None, Flag(("--auth-jwt-audience",), metavar="NAME")] = setting(
        None,
        "MLFLOW_GRPC_AUTH_JWT_AUDIENCE",
        text="The audience (aud) that JWTs must have; several are separated by commas, and one of them is enough.",
        min_length=1,
    )
    auth_jwt_jwks: Annotated[str | None, Flag(("--auth-jwt-jwks",), metavar="URL")] = setting(
        None,
        "MLFLOW_GRPC_AUTH_JWT_JWKS",
        text="The URL or file of the issuer's public keys (JWKS). They are fetched in the background, and the last "
        "valid ones are kept.",
        min_length=1,
    )
    auth_tls_san: Annotated[str | None, Flag(("--auth-tls-san",), metavar="PATTERN")] = setting(
        None,
        "MLFLOW_GRPC_AUTH_TLS_SAN",
        text="The subject alternative names of client certificates that may call, such as spiffe://example.org/*; "
        "several are separated by commas, and * stands for any characters. Needs --tls-client-ca.",
    )

    @property
    def recognizes_callers(self) -> bool:
        """True if calls need a token, a JWT or a certificate with a certain name."""
        return any((self.auth_tokens, self.auth_jwt_issuer, self.auth_tls_san))

    @property
    def jwt_audiences(self) -> tuple[str, ...]:
        """The audiences, of which a JWT must have one."""
        return parts(self.auth_jwt_audience)

    @field_validator("auth_tokens")
    @classmethod
    def _is_readable(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser()
        try:
            path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        return path

    @field_validator("auth_jwt_jwks")
    @classmethod
    def _is_confidential(cls, value: str | None) -> str | None:
        if value is None or "://" not in value:
            return value
        url = urlsplit(value)
        if url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.hostname or "")):
            return value
        raise ValueError(
            "must be an https:// URL or a file, because anyone between the servers could replace the keys otherwise; "
            "http:// works for addresses of this machine"
        )

    @field_validator("auth_tls_san", "auth_jwt_audience")
    @classmethod
    def _has_parts(cls, value: str | None) -> str | None:
        if value is not None and not parts(value):
            raise ValueError("must have a name; several are separated by commas")
        return value

    @model_validator(mode="after")
    def _jwt_is_complete(self) -> Self:
        missing = [flag for field, flag in _JWT.items() if getattr(self, field) is None]
        if 0 < len(missing) < len(_JWT):
            present = next(flag for flag in _JWT.values() if flag not in missing)
            raise ValueError(f"{present} needs {' and '.join(missing)} too")
        return self


def parts(text: str | None) -> tuple[str, ...]:
    """Returns the parts of a text that are separated by commas, without spaces around them and empty ones."""
    return tuple(filter(None, map(str.strip, (text or "").split(","))))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
