"""The gRPC server itself: its options, its address, its TLS.

Rule of this module: a limit or an option of gRPC is set here and nowhere else.
"""

import logging
import socket
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc.addresses import addresses_of
from mlflow_grpc.errors import AddressUnavailable, StartError
from mlflow_grpc.services.handshakes import Handshakes
from mlflow_grpc.settings import Settings, spelling

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Handlers


def _is_not_of_a_caller(record: logging.LogRecord) -> bool:
    """Whether a record of gRPC's is about something that callers cannot bring about as they like.

    It logs with a traceback what each of them can: metadata that is no UTF-8, and with its bytes; and to go away in the
    moment in which the answer is sent, which is then an InternalError.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, grpc.aio.InternalError) and not str(record.msg).startswith("Invalid encoding")


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_a_caller)

REBALANCE_S = 300.0
"""The age of a connection with several workers: the kernel deals out connections, not calls, and a client
that stays connected stays with one worker."""


MAX_AGE_SPREAD = 1.1
"""gRPC makes each age up to 10 % longer or shorter, so that clients do not all come back at once (gRFC A9)."""

MOST_PENDING_CALLS = 50_000
"""From how many calls on that this server has not looked at yet gRPC cancels some, without a reason.

Its default is 1,000, which a burst of calls reaches; those past the bounds of `mlflow_grpc.engine.admission` are to be
told so.
"""

HANDSHAKE_S = 10.0
"""How long a new connection may take until it speaks TLS and HTTP/2; gRPC's default is 120 s."""


def make_server(settings: Settings, handlers: "Iterable[Handlers]", *, share_port: bool) -> grpc.aio.Server:
    """A server that is not yet started and has no port.

    Args:
        settings: The limits.
        handlers: The services.
        share_port: Whether other processes listen on the same port (SO_REUSEPORT). gRPC's default is yes,
            which lets a second server take half of the calls without a word (grpc#10755).

    """
    options = [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Clients behind a proxy that closes idle connections ping each 30 s or so; gRPC's default takes
        # more than one ping in 5 min without a call for an attack.
        ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_S * 1000)),
        ("grpc.server.max_pending_requests", MOST_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MOST_PENDING_CALLS),
    ]
    if age_s := connection_age_s(settings):
        options.append(("grpc.max_connection_age_ms", round(age_s * 1000)))
        options.append(("grpc.max_connection_age_grace_ms", round(settings.timeout_s * 1000)))
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(tuple(handlers))
    return server


def listen(server: grpc.aio.Server, settings: Settings, handshakes: Handshakes) -> int:
    """Binds the address and returns the port.

    A name with several addresses (localhost: 127.0.0.1 and ::1) is bound on all of them or not at all;
    gRPC by itself is content with one.

    Args:
        server: Not yet started.
        settings: Where to listen, and the TLS files.
        handshakes: Is told of connections that come, with TLS.

    Raises:
        AddressUnavailable: The address is taken, not ours, or not permitted.
        StartError: The TLS files are no good, or the host name is unknown.

    """
    credentials = _credentials(settings, handshakes)
    port = settings.port
    for address in _addresses(settings.host, settings.source("host")):
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            port = server.add_secure_port(target, credentials) if credentials else server.add_insecure_port(target)
        except RuntimeError as error:
            raise AddressUnavailable(_why_not(address, port)) from error
    return port


def security(settings: Settings) -> str:
    """Whether connections are encrypted, in words."""
    if settings.tls_cert is None:
        return "no TLS"
    return "TLS with client certificates" if settings.tls_client_ca is not None else "TLS"


def connection_age_s(settings: Settings) -> float:
    """At what age a connection is closed, in seconds; 0 is never."""
    if settings.max_connection_age_s is not None:
        return settings.max_connection_age_s
    return REBALANCE_S if settings.workers > 1 else 0.0


def _addresses(host: str, source: str) -> list[str]:
    try:
        return [str(address[0]) for _, _, address in addresses_of(host)]
    except OSError as error:
        raise StartError(f"{source} {host}: no such host ({error.strerror})") from error


def _why_not(address: str, port: int) -> str:
    """Asks the kernel what gRPC does not tell: why an address cannot be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    reason = ""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, port))
            probe.listen()
    except OSError as error:
        reason = f": {error.strerror}"
    return f"cannot listen on {address} port {port}{reason}; choose another with {spelling('port')} or PORT"


def _credentials(settings: Settings, handshakes: Handshakes) -> grpc.ServerCredentials | None:
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if cert is None or key is None:
        return None
    # gRPC takes any bytes and then fails to bind without a reason; OpenSSL says what is wrong with a file.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        names = f"{spelling('tls_cert')} {cert} and {spelling('tls_key')} {key}"
        raise StartError(f"{names} do not go together: {_reason(error)}") from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            raise StartError(f"{spelling('tls_client_ca')} {client_ca}: {_reason(error)}") from error
    configuration = grpc.ssl_server_certificate_configuration(
        [(key.read_bytes(), cert.read_bytes())],
        root_certificates=client_ca.read_bytes() if client_ca else None,
    )
    # What it gives, None, leaves the certificate as it is; the type stub does not know that.
    fetch: Any = handshakes.began
    return grpc.dynamic_ssl_server_credentials(
        configuration, fetch, require_client_authentication=client_ca is not None
    )


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        words = (error.reason or "not PEM").lower().replace("_", " ")
        return f"OpenSSL says {words} (files have to be PEM, and the key that of the certificate)"
    return str(error)
