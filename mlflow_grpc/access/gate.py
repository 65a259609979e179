"""The gate that each call passes before anything of its request is read.

Rule of this module: it combines the ways to recognize a caller. The cheapest check comes first, and a call that has an
authorization is judged by that alone: a wrong token is not made good by a certificate.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlflow_grpc.access.certificates import CertificateNames
from mlflow_grpc.access.permits import Permit, Permits
from mlflow_grpc.access.refusals import Refusal, Refused, error_of
from mlflow_grpc.access.tokens import TokenFile, digest_of
from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.access_settings import parts
from mlflow_grpc.choices import Service
from mlflow_grpc.distribution import install_source
from mlflow_grpc.errors import CallerNotChecked, StartError
from mlflow_grpc.polling import Poller
from mlflow_grpc.settings import Settings

if TYPE_CHECKING:  # It needs the extra jwt.
    from mlflow_grpc.access.jwts import JwtVerifier

SCHEME = "bearer "


class Gate:
    """Recognizes callers and checks what they may do; used from one thread."""

    def __init__(
        self,
        *,
        tokens: TokenFile | None = None,
        jwts: "JwtVerifier | None" = None,
        certificates: CertificateNames | None = None,
        rules: Sequence[AccessRule] | None = None,
        pollers: Sequence[Poller] = (),
    ) -> None:
        """Takes the ways to recognize a caller, of which one is enough.

        Args:
            tokens: Tokens of a file; None if there are none.
            jwts: Checks JWTs; None if they are not accepted.
            certificates: Names in client certificates that may call; None if certificates give no names.
            rules: What callers may do; None if they may do everything.
            pollers: Threads that keep tokens and keys current, for the owner of the gate to run.

        """
        self._tokens, self._jwts, self._certificates = tokens, jwts, certificates
        self._permits = Permits(rules, lambda: self.count(Refusal.NOT_PERMITTED.value))
        self.has_rules = rules is not None
        """True if callers differ in the models that they may see."""
        self.pollers = pollers
        self.count: Callable[[str], object] = lambda _: None
        """Called with the reason of each refusal, of which there are as many as `Refusal` has members."""

    def enter(
        self, service: Service, authorizations: Sequence[str], certificate_names: Callable[[], Sequence[str]]
    ) -> Permit:
        """Returns the permit of a caller that may use a service.

        Args:
            service: What is called.
            authorizations: Values of the metadata key or header `authorization`. More than one are refused, because a
                proxy may have checked another one than this server would.
            certificate_names: Returns the subject alternative names of the client's certificate.

        Raises:
            Unauthenticated: The caller is not recognized.
            PermissionDenied: It may not use the service.
            CallerNotChecked: Its JWT cannot be checked now.

        """
        try:
            permit = self._permits.of(self._caller(authorizations, certificate_names))
        except Refused as refused:
            self.count(refused.refusal.value)
            raise error_of(refused.refusal) from None
        except CallerNotChecked as error:
            self.count(error.error_class or Refusal.NO_KEYS)
            raise
        permit.check(service)
        return permit

    def recognized(
        self, authorizations: Sequence[str], certificate_names: Callable[[], Sequence[str]]
    ) -> Permit | None:
        """Returns the permit of a caller, for what is open to everyone; None if the caller is not recognized.

        Args:
            authorizations: As in `enter`.
            certificate_names: As in `enter`.

        """
        try:
            return self._permits.of(self._caller(authorizations, certificate_names))
        except (Refused, CallerNotChecked):
            return None

    def _caller(self, authorizations: Sequence[str], certificate_names: Callable[[], Sequence[str]]) -> str:
        if not authorizations:
            if self._certificates is None:
                raise Refused(Refusal.NO_CREDENTIALS)
            name = self._certificates.caller(certificate_names())
            if name is None:
                only_certificates = self._tokens is None and self._jwts is None
                raise Refused(Refusal.WRONG_CERTIFICATE if only_certificates else Refusal.NO_CREDENTIALS)
            return name
        if len(authorizations) > 1:
            raise Refused(Refusal.SEVERAL_AUTHORIZATIONS)
        (authorization,) = authorizations
        if authorization[: len(SCHEME)].lower() != SCHEME:
            raise Refused(Refusal.NOT_BEARER)
        token = authorization[len(SCHEME) :].strip()
        digest = digest_of(token)
        if self._tokens is not None and (caller := self._tokens.caller(digest)) is not None:
            return caller
        if self._jwts is not None and token.count(".") == 2:  # noqa: PLR2004 - the form of a signed JWT
            return self._jwts.caller(token, digest)
        raise Refused(Refusal.UNKNOWN_TOKEN)


def make_gate(settings: Settings, rules: Sequence[AccessRule] | None) -> Gate | None:
    """Returns the gate of a server; None if every caller may call.

    Args:
        settings: How callers are recognized.
        rules: What they may do; None if everything.

    Raises:
        StartError: A file is not valid, a package is missing, or there are rules and no way to recognize callers.

    """
    if not settings.recognizes_callers:
        if rules is not None:
            raise StartError(
                "access: rules need names of callers: set --auth-tokens, --auth-jwt-issuer or --auth-tls-san"
            )
        return None
    tokens = jwts = certificates = None
    pollers = []
    if settings.auth_tokens is not None:
        tokens = TokenFile(settings.auth_tokens)
        pollers.append(Poller(tokens.look, "watch-tokens"))
    if settings.auth_jwt_issuer is not None and settings.auth_jwt_jwks is not None:
        try:
            from mlflow_grpc.access.jwts import JwtVerifier
            from mlflow_grpc.access.keys import COOLDOWN_S, KeySource
        except ModuleNotFoundError as error:
            raise StartError(
                f"--auth-jwt-issuer needs the package {error.name}: pip install {install_source('jwt')}"
            ) from error
        source = KeySource(settings.auth_jwt_jwks)
        poller = Poller(source.look, "fetch-keys", cooldown_s=COOLDOWN_S if "://" in settings.auth_jwt_jwks else 0.0)
        source.when_unknown = poller.wake
        pollers.append(poller)
        jwts = JwtVerifier(settings.auth_jwt_issuer, settings.jwt_audiences, source)
    if settings.auth_tls_san is not None:
        certificates = CertificateNames(parts(settings.auth_tls_san))
    return Gate(tokens=tokens, jwts=jwts, certificates=certificates, rules=rules, pollers=pollers)
