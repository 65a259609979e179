"""Checks of server addresses, and explanations of connections that fail.

Rule of this module: an address that gRPC would misread, or would retry until the deadline, is a ValueError that says
what to write; gRPC's own syntax passes. An explanation comes before gRPC's error text, which is kept.
"""

import re
from urllib.parse import unquote

DEFAULT_PORT = 50051
"""The default port of `mlflow-grpc serve`."""

MAX_PORT = 65535

_GRPC_SCHEMES = frozenset(
    {"dns", "google-c2p", "google-c2p-experimental", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"}
)
"""The schemes of gRPC's name syntax: https://github.com/grpc/grpc/blob/master/doc/naming.md."""

_NAMED_PORTS = frozenset({"http", "https"})
"""Names that gRPC's resolver accepts as a port."""

_PROBLEMS = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (r"\s", ", without spaces"),
        (r"[/?#]", ", without a path"),
        (r"@", ", without a user"),
        (r",", "; several are elements of the list"),
        (r"^(\d+)$", r", such as localhost:\1"),
        (r"^([^:]+|\[.*\]):$", rf", such as \1:{DEFAULT_PORT}"),
        (r"^(:\d+)$", r", such as localhost\1"),
    )
)
"""Patterns of addresses that are not host:port, and the end of their error message."""

_NO_CONNECTION = "^(failed to connect|connections to all backends failing)"
"""The start of gRPC's text for a failed connection, to a single address and to several."""

_EXPLANATIONS = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        ("^errors resolving|^DNS resolution failed", "The host of {address} cannot be found."),
        (
            "^Received http2 header with status",
            "What answers at {address} is a web server or a proxy, and no gRPC server: give the port of `mlflow-grpc "
            "serve`, by default {port}, or check the routes of the proxy.",
        ),
        (
            "^(Method not found|unknown service|unknown method)",
            "The server at {address} has no such method: it is not mlflow-grpc, or its models have no such RPC.",
        ),
        (
            f"{_NO_CONNECTION}.*(http1.x server|got frame type 80)",
            "The server at {address} is an HTTP server, like `mlflow models serve`, not a gRPC server. Give the port "
            "of `mlflow-grpc serve`, by default {port}.",
        ),
        (
            f"{_NO_CONNECTION}.*Failed parsing HTTP/2",
            "The server at {address} is not a gRPC server. Give the port of `mlflow-grpc serve`, by default {port}.",
        ),
        (
            f"{_NO_CONNECTION}.*WRONG_VERSION_NUMBER",
            "The server at {address} does not speak TLS: leave tls (--tls, grpcs://) out, or give the port of a TLS "
            "server.",
        ),
        (
            f"{_NO_CONNECTION}.*missing selected ALPN",
            "The server at {address} speaks TLS without HTTP/2, so it is not a gRPC server. Give the port of "
            "`mlflow-grpc serve`, by default {port}.",
        ),
        (
            f"{_NO_CONNECTION}.*CERTIFICATE_VERIFY_FAILED",
            "The certificate of {address} is not from a trusted authority: give its authority (ca, --tls-ca).",
        ),
        (
            f"{_NO_CONNECTION}.*(Hostname Verification|not in peer certificate)",
            "The certificate of {address} is for another name: connect to that name, or give it (server_name, "
            "--tls-server-name).",
        ),
        (
            f"{_NO_CONNECTION}.*Connection refused",
            "Nothing listens at {address}.{elsewhere}",
        ),
    )
)
"""Patterns of gRPC's error texts, and their explanations."""

_CLOSED = re.compile(f"{_NO_CONNECTION}.*(Socket closed|Connection reset|end of TCP stream|Broken pipe)")
_PEER = re.compile(r"last error: .*?\b(?:ipv4|ipv6):((?:%5B|\[)[^\]]+?(?:%5D|\]):\d+|[\d.]+:\d+)")

_CLOSE_REASONS = {
    True: "{address} closes connections at once: it may require a client certificate (cert and key, --tls-cert and "
    "--tls-key), may not speak TLS, or is not a gRPC server.",
    False: "{address} closes connections at once: it may require TLS (give tls, --tls), or is not a gRPC server.",
}
"""Explanations for a server that gRPC has no reason for, by whether the client uses TLS."""


def scheme_of(address: str) -> str:
    """The scheme of a target in gRPC's name syntax; empty for any other address."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?", address)
    return scheme[1] if scheme and scheme[1] in _GRPC_SCHEMES else ""


def checked_address(address: str) -> str:
    """The address; raises ValueError if it is neither host:port nor a gRPC target.

    gRPC would wrap a port above 65535 around to another port.
    """
    if not address or not address.isprintable():
        raise ValueError(f"the address is host:port, or a target that gRPC knows; not {address!r}")
    if scheme_of(address):
        return address
    if scheme := re.match("([A-Za-z][A-Za-z0-9+.-]*)://", address):
        hint = "; for TLS give tls (--tls) or grpcs://" if scheme[1].lower() == "https" else ""
        raise ValueError(f"the address is host:port, without {scheme[1]}://; not {address!r}{hint}")
    for pattern, sentence in _PROBLEMS:
        if match := pattern.search(address):
            raise ValueError(f"the address is host:port{match.expand(sentence)}; not {address!r}")
    port = _port(address)
    if port is None:
        raise ValueError(
            f"the address {address!r} has no port: give host:port, such as {_with_port(address)} for the default port "
            "of `mlflow-grpc serve`"
        )
    if port not in _NAMED_PORTS and not (port.isdecimal() and 0 < int(port) <= MAX_PORT):
        raise ValueError(f"the address is host:port with a port from 1 to {MAX_PORT}; not {address!r}")
    return address


def host_and_port(address: str) -> tuple[str, str]:
    """Splits host:port and removes the brackets of IPv6. The port can be empty."""
    port = _port(address) or ""
    host = address.removesuffix(f":{port}") if port else address
    return host.removeprefix("[").removesuffix("]"), port


def joined(host: str, port: str) -> str:
    """host:port, with an IPv6 address in brackets."""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if port else host


def unreported(status: str, address: str) -> str:
    """The address of localhost that gRPC tried too, if its text reports that the other one refuses; else empty.

    gRPC reports only the last of the two, in an order that changes from call to call.
    """
    host, port = host_and_port(address)
    if host.lower() != "localhost" or not is_refused(status):
        return ""
    return joined("127.0.0.1" if _peer(status).startswith("[") else "::1", port)


def is_refused(status: str) -> bool:
    """Returns True for gRPC's text for an address at which nothing listens."""
    return bool(re.search(f"{_NO_CONNECTION}.*Connection refused", status))


def explained(
    status: str, address: str, *, encrypted: bool, is_single: bool = True, is_refused_everywhere: bool = False
) -> str:
    """Returns gRPC's text for a call that reached no mlflow-grpc, after an explanation, if there is one.

    Of several addresses (not `is_single`) it names the one that failed. `is_refused_everywhere` says that nothing
    listens at any address of a name.
    """
    explanation = next((sentence for pattern, sentence in _EXPLANATIONS if pattern.search(status)), "")
    if _CLOSED.search(status):
        explanation = _CLOSE_REASONS[encrypted]
    if not explanation:
        return status
    port = _port(address)
    if is_single and re.search(_NO_CONNECTION, status) and port is None:
        no_port = "The address {address} has no port, and gRPC takes 443: give host:port, such as {example}."
        explanation = f"{no_port} {explanation}"
    peer = _peer(status)
    server, elsewhere = (address if is_single else peer or address), ""
    if is_single and not is_refused_everywhere and peer.startswith("[") and "[" not in address:
        # The name has an IPv6 address, which gRPC tried last. Of the others, it does not report the errors.
        host, other_port = host_and_port(address)
        other = joined("127.0.0.1", other_port) if host.lower() == "localhost" else f"an IPv4 address of {address}"
        server, elsewhere = peer, f" If a server listens at {other}, give that address to see why it fails there."
    if port == str(DEFAULT_PORT):
        elsewhere += " Start a server, or give the address of another machine."
    else:
        elsewhere += f" The default port of `mlflow-grpc serve` is {DEFAULT_PORT}."
    sentence = explanation.format(address=server, port=DEFAULT_PORT, example=_with_port(address), elsewhere=elsewhere)
    return f"{sentence} (gRPC: {status})"


def _peer(status: str) -> str:
    match = _PEER.search(status)
    if not match:
        return ""
    host, port = host_and_port(unquote(match[1]))
    host = host.removeprefix("::ffff:") if "." in host else host  # The form of IPv4 addresses in lists with IPv6.
    return joined(host, port)


def _with_port(address: str) -> str:
    is_bare_ipv6 = address.count(":") > 1 and not scheme_of(address) and not address.endswith("]")
    return f"[{address}]:{DEFAULT_PORT}" if is_bare_ipv6 else f"{address}:{DEFAULT_PORT}"


def _port(address: str) -> str | None:
    """The port of host:port or of a dns target; None if it is missing, empty for other gRPC targets."""
    scheme, colon, target = address.partition(":")
    if colon and scheme in _GRPC_SCHEMES and scheme != "dns":
        return ""
    name = target.rpartition("/")[2] if colon and scheme == "dns" else address
    match = re.search(r"(^[^:]*|\]):([^:\]]+)$", name)
    return match[2] if match else None
