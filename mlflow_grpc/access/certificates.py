"""Names of callers in client certificates (`--auth-tls-san`).

Rule of this module: TLS has checked the certificate, and this module only selects a name in it. The common name of the
subject does not count, as in RFC 9525. A name that could break a log line does not count either.
"""

from collections.abc import Sequence

from mlflow_grpc.access.patterns import matcher_of
from mlflow_grpc.access.tokens import is_name


class CertificateNames:
    """The subject alternative names that may call: DNS names, URIs such as SPIFFE ids, and addresses."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Takes patterns of names; `*` stands for any characters."""
        self._matchers = [matcher_of(pattern) for pattern in patterns]

    def caller(self, names: Sequence[str]) -> str | None:
        """Returns the name of the caller with a certificate; None if none of its names may call.

        If several names may, the pattern decides that comes first in the setting, and then their order in the
        certificate.
        """
        usable = list(filter(is_name, names))
        return next((name for matcher in self._matchers for name in usable if matcher.fullmatch(name)), None)
