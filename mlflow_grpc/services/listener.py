"""The gRPC server: its options, its address, its TLS.

Rule of this module: it is the only place that sets gRPC's limits and options.
"""

import logging
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc.addresses import addresses_of, allow_reuse, cannot_listen, with_port
from mlflow_grpc.errors import AddressUnavailable, StartError
from mlflow_grpc.services.handshakes import Handshakes
from mlflow_grpc.settings import Settings, spelling
from mlflow_grpc.tls_files import Pem, TlsFiles

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handlers


def _is_no_callers_fault(record: logging.LogRecord) -> bool:
    """Returns False for gRPC's log records that any caller can cause at will.

    gRPC logs two of these with a traceback: metadata that is not UTF-8, with its bytes, and an answer to a caller that
    has just left, which is an InternalError.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, grpc.aio.InternalError) and not str(record.msg).startswith("Invalid encoding")


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_callers_fault)

REBALANCE_S = 300.0
"""Maximum age of a connection with several workers, in seconds. The kernel distributes connections, not calls, so a
client that stays connected stays with one worker."""

MAX_AGE_SPREAD = 1.1
"""Factor on the age: gRPC varies it by up to 10 %, so that clients do not all reconnect at once (gRFC A9)."""

MAX_PENDING_CALLS = 50_000
"""Number of calls in gRPC's own queue above which it cancels some without a reason.

gRPC's default is 1,000, which a burst of calls reaches. Admission refuses such calls with a reason
(`mlflow_grpc.engine.admission`).
"""

HANDSHAKE_S = 10.0
"""Maximum duration of the TLS and HTTP/2 handshakes, in seconds; gRPC's default is 120 s."""


def make_server(settings: Settings, handlers: "Iterable[Handlers]", *, share_port: bool) -> grpc.aio.Server:
    """Makes a server that is not started and has no port.

    Args:
        settings: The limits.
        handlers: The services.
        share_port: True if other processes listen on the same port (SO_REUSEPORT). gRPC's default is True, which lets
            a second server silently take half of the calls (grpc#10755).

    """
    options = [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Clients behind a proxy that closes idle connections ping about every 30 s. By default gRPC treats more than
        # one ping in 5 min without a call as an attack.
        ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_S * 1000)),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
    ]
    if age_s := connection_age_s(settings):
        options.append(("grpc.max_connection_age_ms", round(age_s * 1000)))
        options.append(("grpc.max_connection_age_grace_ms", round(settings.timeout_s * 1000)))
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(tuple(handlers))
    return server


def listen(server: grpc.aio.Server, settings: Settings, files: TlsFiles | None, handshakes: Handshakes) -> int:
    """Binds the address and returns the port.

    A name with several addresses (localhost: 127.0.0.1 and ::1) is bound on all of them or not at all. gRPC by itself
    is satisfied with one.

    Args:
        server: A server that is not started.
        settings: Where to listen.
        files: The TLS files; None for a port without TLS.
        handshakes: Counts new TLS connections.

    Raises:
        AddressUnavailable: The address is taken, not local, or not permitted.
        StartError: The host name is unknown.

    """
    port = settings.port
    for address in _addresses(settings.host, settings.source("host")):
        target = with_port(address, port)
        try:
            if files is None:
                port = server.add_insecure_port(target)
            else:
                port = server.add_secure_port(target, _credentials(files, handshakes))
        except RuntimeError as error:
            raise AddressUnavailable(_bind_error(address, port)) from error
    return port


def security(settings: Settings) -> str:
    """Returns a phrase for the ready line: whether connections are encrypted, and what callers need."""
    tls = "no TLS" if settings.tls_cert is None else "TLS"
    if settings.tls_client_ca is not None:
        tls = "TLS with client certificates"
    proofs = {
        "a token": settings.auth_tokens,
        "a JWT": settings.auth_jwt_issuer,
        "a certificate with a certain name": settings.auth_tls_san,
    }
    needed = " or ".join(text for text, setting in proofs.items() if setting is not None)
    return f"{tls}, callers need {needed}" if needed else tls


def connection_age_s(settings: Settings) -> float:
    """Returns the age at which a connection is closed, in seconds; 0 for never."""
    if settings.max_connection_age_s is not None:
        return settings.max_connection_age_s
    return REBALANCE_S if settings.workers > 1 else 0.0


def _addresses(host: str, source: str) -> list[str]:
    try:
        return [str(address[0]) for _, _, address in addresses_of(host)]
    except OSError as error:
        raise StartError(f"{source} {host}: no such host ({error.strerror})") from error


def _bind_error(address: str, port: int) -> str:
    """Finds out why an address cannot be bound, which gRPC does not report."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    reason = "gRPC cannot bind it"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            allow_reuse(probe)
            probe.bind((address, port))
            probe.listen()
    except OSError as error:
        reason = str(error.strerror)
    return cannot_listen(address, port, reason, f"{spelling('port')} or PORT")


def _credentials(files: TlsFiles, handshakes: Handshakes) -> grpc.ServerCredentials:
    """Returns the credentials of one address. gRPC fetches the current files for each new connection."""
    sent = files.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Returns the files if they have changed; called in threads of gRPC."""
        nonlocal sent
        handshakes.connection_opened()
        current = files.current
        if current is sent:
            return None
        sent = current
        return _certificates(current)

    # Returning None keeps the certificate, which the type stub does not know.
    fetch_any: Any = fetch
    return grpc.dynamic_ssl_server_credentials(
        _certificates(sent), fetch_any, require_client_authentication=sent.client_ca is not None
    )


def _certificates(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], root_certificates=pem.client_ca)
