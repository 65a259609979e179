"""Addresses of servers: which can be one, and what it means when no server of ours answers there.

Rule of this module: what gRPC would take for something else, or try until it gives up, is refused with a ValueError
that says what to write; gRPC's own syntax passes. What gRPC says of a connection that fails is kept behind a sentence.
"""

import re

DEFAULT_PORT = 50051
"""Where `mlflow-grpc serve` listens if it is not told otherwise."""

MAX_PORT = 65535

_GRPC_SCHEMES = frozenset(
    {"dns", "google-c2p", "google-c2p-experimental", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"}
)
"""Of gRPC's name syntax: https://github.com/grpc/grpc/blob/master/doc/naming.md."""

_ENCRYPTED_SCHEMES = frozenset({"https", "grpcs"})
_PORTS_WITH_NAMES = frozenset({"http", "https"})
"""The names that gRPC's resolver takes for a port."""

_PROBLEMS = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (r"\s", ", without spaces"),
        (r"[/?#]", ", without a path"),
        (r"@", ", without a user"),
        (r",", f"; several are written ipv4:10.0.0.1:{DEFAULT_PORT},10.0.0.2:{DEFAULT_PORT}"),
        (r"^(\d+)$", r", such as localhost:\1"),
        (r"^([^:]+|\[.*\]):$", rf", such as \1:{DEFAULT_PORT}"),
        (r"^(:\d+)$", r", such as localhost\1"),
    )
)
"""What an address without a scheme looks like that is no host:port, and what is said of it."""

_MEANINGS = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        ("^errors resolving|^DNS resolution failed", "The host of {address} cannot be found."),
        (
            "^(Method not found|unknown service|unknown method)",
            "The server at {address} has no such method: it is another gRPC server, or its models have no such call.",
        ),
        (
            "^failed to connect.*(http1.x server|got frame type 80)",
            "What answers at {address} is an HTTP server, as `mlflow models serve` is, and no gRPC server. Give the "
            "port of `mlflow-grpc serve`, {port} if it was not told otherwise.",
        ),
        (
            "^failed to connect.*Failed parsing HTTP/2",
            "What answers at {address} is no gRPC server. Give the port of `mlflow-grpc serve`, {port} if it was not "
            "told otherwise.",
        ),
        (
            "^failed to connect.*WRONG_VERSION_NUMBER",
            "The server at {address} does not speak TLS: leave tls (--tls) out, or give the port of one that does.",
        ),
        (
            "^failed to connect.*CERTIFICATE_VERIFY_FAILED",
            "The certificate of {address} is of no authority that is trusted here: give that authority (ca, --tls-ca).",
        ),
        (
            "^failed to connect.*(Hostname Verification|not in peer certificate)",
            "The certificate of {address} is for another name: connect to that, or give it (server_name, "
            "--tls-server-name).",
        ),
        (
            "^failed to connect.*Connection refused",
            "Nothing listens at {address}. The port of `mlflow-grpc serve` is {port} if it was not told otherwise.",
        ),
    )
)
"""What gRPC says, and what that means."""

_CLOSED = re.compile("^failed to connect.*(Socket closed|Connection reset|end of TCP stream)")
_WHY_CLOSED = {
    True: "want a certificate of the client (cert and key, --tls-cert and --tls-key)",
    False: "speak TLS (give tls, --tls)",
}
"""What a server may want that closes a connection at once, by whether the client speaks TLS."""


def checked_address(address: str) -> str:
    """The address, if it can be one.

    Raises:
        ValueError: It is empty, a URL, has a path, or a port past 65535, which gRPC would wrap around to another one,
            or is no host:port in another way. A host alone is one: gRPC takes port 443 for it.

    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?", address)
    if not address or not address.isprintable():
        raise ValueError(f"the address is host:port, or a target that gRPC knows; not {address!r}")
    if scheme and scheme[1] in _GRPC_SCHEMES:
        return address
    if scheme and scheme[2]:
        encrypted = "; for TLS give tls (--tls)" if scheme[1].lower() in _ENCRYPTED_SCHEMES else ""
        raise ValueError(f"the address is host:port, without {scheme[1]}://; not {address!r}{encrypted}")
    for pattern, sentence in _PROBLEMS:
        if match := pattern.search(address):
            raise ValueError(f"the address is host:port{match.expand(sentence)}; not {address!r}")
    port = _port(address)
    if port is not None and port not in _PORTS_WITH_NAMES and not (port.isdecimal() and 0 < int(port) <= MAX_PORT):
        raise ValueError(f"the address is host:port with a port from 1 to {MAX_PORT}; not {address!r}")
    return address


def explained(status: str, address: str, *, encrypted: bool) -> str:
    """What gRPC says of a call that reached no server of ours, behind a sentence about what that means.

    Args:
        status: The words of the status; those that are not known here come back as they are.
        address: Of the client.
        encrypted: Whether the client speaks TLS.

    """
    meaning = next((sentence for pattern, sentence in _MEANINGS if pattern.search(status)), "")
    if _CLOSED.search(status):
        meaning = f"{{address}} closes connections at once: it may {_WHY_CLOSED[encrypted]}, or be no gRPC server."
    if not meaning:
        return status
    if status.startswith("failed to connect") and _port(address) is None:
        no_port = "The address {address} has no port, and gRPC takes 443: give host:port, such as {example}."
        meaning = f"{no_port} {meaning}"
    host = f"[{address}]" if address.count(":") > 1 and not address.endswith("]") else address
    sentence = meaning.format(address=address, port=DEFAULT_PORT, example=f"{host}:{DEFAULT_PORT}")
    return f"{sentence} (gRPC: {status})"


def _port(address: str) -> str | None:
    """The port of host:port or of a dns target; None if it has none, empty for other targets of gRPC."""
    scheme, colon, target = address.partition(":")
    if colon and scheme in _GRPC_SCHEMES and scheme != "dns":
        return ""
    name = target.rpartition("/")[2] if colon and scheme == "dns" else address
    match = re.search(r"(^[^:]*|\]):([^:\]]+)$", name)
    return match[2] if match else None
