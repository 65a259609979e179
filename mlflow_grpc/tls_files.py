"""The TLS files of both ports: their check, and new ones while the server runs.

Rule of this module: a certificate takes effect only after OpenSSL has loaded it with its key and authorities, and while
clients accept its dates. It knows neither gRPC nor HTTP; each port fetches the current files for a new connection.
"""

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.polling import LOOK_INTERVAL_S, SETTLE_S
from mlflow_grpc.settings import Settings, spelling
from mlflow_grpc.tls_dates import date_problem, expiry

logger = get_logger(__name__)


@dataclass(frozen=True)
class Pem:
    """Contents of the files, in PEM format."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


class TlsFiles:
    """The files of a server with TLS."""

    def __init__(self, settings: Settings, cert: Path, key: Path) -> None:
        """Reads and checks the files.

        Args:
            settings: Has the authorities of clients, if there are any.
            cert: The certificate chain.
            key: Its private key.

        Raises:
            StartError: A file is not valid, or they do not go together.

        """
        self._cert, self._key, self._client_ca = cert, key, settings.tls_client_ca
        try:
            self._seen: Pem | None = self._read()
        except OSError as error:
            raise StartError(f"cannot read {error.filename}: {error.strerror}") from error
        self.current: Pem = self._seen
        """Contents of the last valid files. Each change is another object."""
        self.context = self._load()
        """Context of `ssl` with these files, for a server."""
        self.expires_at = expiry(self.current.cert)
        """Time at which the certificate in use expires, in seconds since 1970."""
        self._is_reported = False
        self._failed = False
        """True after an error, until valid files are back."""
        if problem := date_problem(self.context, cert):
            logger.warning("clients refuse the certificate %s: %s", cert, problem)

    def look(self) -> float:
        """Reads the files again, and takes them if they have changed and are valid; called in one thread.

        A change counts if the next look finds it too, because the files may be in the middle of a change.

        Returns:
            The time until the next look, in seconds.

        """
        try:
            files: Pem | None = self._read()
            problem = ""
        except OSError as error:
            files, problem = None, f"cannot read {error.filename}: {error.strerror}"
        is_new, self._seen = files != self._seen, files
        if is_new:
            self._is_reported = False
        if files == self.current:
            if self._failed:
                self._failed = False
                logger.info("the TLS files are again those that the server uses")
            return LOOK_INTERVAL_S
        if is_new:
            return SETTLE_S
        if files is not None:
            problem = self._take(files)
        if problem and not self._is_reported:
            self._is_reported = self._failed = True
            logger.error("the previous TLS files stay in use, because the new ones are not usable: %s", problem)
        return LOOK_INTERVAL_S

    def _take(self, files: Pem) -> str:
        """Takes new files, and returns what is wrong with them if they are not usable."""
        try:
            context = self._load()
            if problem := date_problem(context, self._cert):
                return f"clients refuse the certificate {self._cert}: {problem}"
            is_settled = self._read() == files
        except (StartError, OSError) as error:
            return str(error)
        if is_settled:  # Otherwise, the next look finds what replaces them now.
            self.context, self.current, self.expires_at = context, files, expiry(files.cert)
            self._failed = False
            until = dt.datetime.fromtimestamp(self.expires_at, dt.UTC)
            logger.info(
                "new TLS files: connections from now on get the certificate of %s, valid until %s",
                self._cert,
                until.date(),
            )
        return ""

    def _read(self) -> Pem:
        client_ca = self._client_ca.read_bytes() if self._client_ca is not None else None
        return Pem(self._cert.read_bytes(), self._key.read_bytes(), client_ca)

    def _load(self) -> ssl.SSLContext:
        """Returns a context with the files.

        Raises:
            StartError: OpenSSL does not accept them. gRPC accepts any bytes, and then fails without a reason.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            raise StartError(self._problem_of_pair(error)) from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                raise StartError(f"{spelling('tls_client_ca')} {self._client_ca}: {_reason(error)}") from error
            context.verify_mode = ssl.CERT_REQUIRED
            # A session that is resumed would keep a client whose authority is no longer trusted.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context

    def _problem_of_pair(self, error: OSError | ValueError) -> str:
        cert, key = f"{spelling('tls_cert')} {self._cert}", f"{spelling('tls_key')} {self._key}"
        for name, file, label in ((cert, self._cert, b"CERTIFICATE-----"), (key, self._key, b"PRIVATE KEY-----")):
            if label not in file.read_bytes():
                return f"{name} has no {label.decode().removesuffix('-----').lower()} in PEM format"
        return f"{cert} and {key} do not go together: {_reason(error)}"


def tls_files(settings: Settings) -> TlsFiles | None:
    """Returns the TLS files of the settings; None for a server without TLS. Raises what TlsFiles raises."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TlsFiles(settings, settings.tls_cert, settings.tls_key)


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "not PEM").lower().replace("_", " ")
        return f"OpenSSL says {reason} (files have to be PEM, and the key that of the certificate)"
    return str(error)
