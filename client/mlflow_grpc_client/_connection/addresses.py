"""Addresses of servers: which can be one, and what it means when no server of ours answers there.

Rule of this module: what gRPC would take for something else, or try until it gives up, is refused with a ValueError
that says what to write; gRPC's own syntax passes. What gRPC says of a connection that fails is kept behind a sentence.
"""

import re
from urllib.parse import unquote

from mlflow_grpc_client._connection.probing import Talk

DEFAULT_PORT = 50051
"""Where `mlflow-grpc serve` listens if it is not told otherwise."""

MAX_PORT = 65535

_GRPC_SCHEMES = frozenset(
    {"dns", "google-c2p", "google-c2p-experimental", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"}
)
"""Of gRPC's name syntax: https://github.com/grpc/grpc/blob/master/doc/naming.md."""

_ENCRYPTED_SCHEMES = frozenset({"https"})
_PORTS_WITH_NAMES = frozenset({"http", "https"})
"""The names that gRPC's resolver takes for a port."""

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
"""What an address without a scheme looks like that is no host:port, and what is said of it."""

_UNREACHED = "^(failed to connect|connections to all backends failing)"
"""How gRPC begins when it has no connection: with one address, and with several."""

_MEANINGS = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        ("^errors resolving|^DNS resolution failed", "The host of {address} cannot be found."),
        (
            "^(Method not found|unknown service|unknown method)",
            "The server at {address} has no such method: it is another gRPC server, or its models have no such call.",
        ),
        (
            f"{_UNREACHED}.*(http1.x server|got frame type 80)",
            "What answers at {address} is an HTTP server, as `mlflow models serve` is, and no gRPC server. Give the "
            "port of `mlflow-grpc serve`, {port} if it was not told otherwise.",
        ),
        (
            f"{_UNREACHED}.*Failed parsing HTTP/2",
            "What answers at {address} is no gRPC server. Give the port of `mlflow-grpc serve`, {port} if it was not "
            "told otherwise.",
        ),
        (
            f"{_UNREACHED}.*WRONG_VERSION_NUMBER",
            "The server at {address} does not speak TLS: leave tls (--tls, grpcs://) out, or give the port of one that "
            "does.",
        ),
        (
            f"{_UNREACHED}.*CERTIFICATE_VERIFY_FAILED",
            "The certificate of {address} is of no authority that is trusted here: give that authority (ca, --tls-ca).",
        ),
        (
            f"{_UNREACHED}.*(Hostname Verification|not in peer certificate)",
            "The certificate of {address} is for another name: connect to that, or give it (server_name, "
            "--tls-server-name).",
        ),
        (
            f"{_UNREACHED}.*Connection refused",
            "Nothing listens at {address}. The port of `mlflow-grpc serve` is {port} if it was not told otherwise.",
        ),
    )
)
"""What gRPC says, and what that means."""

_CLOSED = re.compile(f"{_UNREACHED}.*(Socket closed|Connection reset|end of TCP stream|Broken pipe)")
_OTHER_PROTOCOL = re.compile(f"{_UNREACHED}.*(http1.x server|got frame type 80|Failed parsing HTTP/2)")
_PEER = re.compile(r"last error: .*?\b(?:ipv4|ipv6):((?:%5B|\[)[^\]]+?(?:%5D|\]):\d+|[\d.]+:\d+)")

_NO_TLS = (
    "The server at {address} does not speak TLS: leave tls (--tls, grpcs://) out, or give the port of one that does."
)
_MISMATCHES = {
    (True, Talk.CLEAR): _NO_TLS,
    (False, Talk.TLS): "The server at {address} speaks TLS, and this client does not: give tls=True, or TLS(ca=...) "
    "for an authority of its own (--tls, --tls-ca, grpcs://).",
}
"""By whether the client speaks TLS, and what the server speaks."""
_WHY_CLOSED = {
    True: "{address} closes connections at once: it may want a certificate of the client (cert and key, --tls-cert and "
    "--tls-key), or be no gRPC server.",
    False: "{address} closes connections at once: it may speak TLS (give tls, --tls), or be no gRPC server.",
}
"""What a server may want of which no more is known, by whether the client speaks TLS."""


def scheme_of(address: str) -> str:
    """The scheme of a target in gRPC's name syntax; empty if it is none."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?", address)
    return scheme[1] if scheme and scheme[1] in _GRPC_SCHEMES else ""


def checked_address(address: str) -> str:
    """The address, if it can be one.

    Raises:
        ValueError: It is empty, a URL, has a path, no port, or one past 65535, which gRPC would wrap around to another
            one, or is no host:port in another way.

    """
    if not address or not address.isprintable():
        raise ValueError(f"the address is host:port, or a target that gRPC knows; not {address!r}")
    if scheme_of(address):
        return address
    if scheme := re.match("([A-Za-z][A-Za-z0-9+.-]*)://", address):
        encrypted = "; for TLS give tls (--tls) or grpcs://" if scheme[1].lower() in _ENCRYPTED_SCHEMES else ""
        raise ValueError(f"the address is host:port, without {scheme[1]}://; not {address!r}{encrypted}")
    for pattern, sentence in _PROBLEMS:
        if match := pattern.search(address):
            raise ValueError(f"the address is host:port{match.expand(sentence)}; not {address!r}")
    port = _port(address)
    if port is None:
        raise ValueError(
            f"the address {address!r} has no port: give host:port, such as {_with_port(address)}, the port of "
            "`mlflow-grpc serve` if it was not told otherwise"
        )
    if port not in _PORTS_WITH_NAMES and not (port.isdecimal() and 0 < int(port) <= MAX_PORT):
        raise ValueError(f"the address is host:port with a port from 1 to {MAX_PORT}; not {address!r}")
    return address


def host_and_port(address: str) -> tuple[str, str]:
    """The parts of host:port, without the brackets of IPv6; the port is empty if there is none."""
    port = _port(address) or ""
    host = address.removesuffix(f":{port}") if port else address
    return host.removeprefix("[").removesuffix("]"), port


def unclear_peer(status: str) -> tuple[str, str]:
    """The host and port of a server that does not get on with the client, where gRPC does not say why; else empty."""
    is_unclear = _CLOSED.search(status) or _OTHER_PROTOCOL.search(status)
    return host_and_port(_peer(status)) if is_unclear else ("", "")


def explained(status: str, address: str, *, encrypted: bool, is_one: bool = True, talk: Talk = Talk.UNKNOWN) -> str:
    """What gRPC says of a call that reached no server of ours, behind a sentence about what that means.

    Args:
        status: The words of the status; those that are not known here come back as they are.
        address: Of the client.
        encrypted: Whether the client speaks TLS.
        is_one: Whether that address is all that the client has; the one that the status is about is named otherwise.
        talk: What the server of `unclear_peer` speaks.

    """
    meaning = next((sentence for pattern, sentence in _MEANINGS if pattern.search(status)), "")
    if mismatch := _MISMATCHES.get((encrypted, talk)):
        meaning = mismatch
    elif _CLOSED.search(status) and talk is not Talk.CLEAR:  # One that speaks as the client does was about to end.
        meaning = _WHY_CLOSED[encrypted]
    if not meaning:
        return status
    if is_one and re.search(_UNREACHED, status) and _port(address) is None:
        no_port = "The address {address} has no port, and gRPC takes 443: give host:port, such as {example}."
        meaning = f"{no_port} {meaning}"
    named = address if is_one else _peer(status) or address
    sentence = meaning.format(address=named, port=DEFAULT_PORT, example=_with_port(address))
    return f"{sentence} (gRPC: {status})"


def _peer(status: str) -> str:
    match = _PEER.search(status)
    if not match:
        return ""
    host, port = host_and_port(unquote(match[1]))
    host = host.removeprefix("::ffff:") if "." in host else host  # How lists have IPv4 beside IPv6.
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _with_port(address: str) -> str:
    is_bare_ipv6 = address.count(":") > 1 and not scheme_of(address) and not address.endswith("]")
    return f"[{address}]:{DEFAULT_PORT}" if is_bare_ipv6 else f"{address}:{DEFAULT_PORT}"


def _port(address: str) -> str | None:
    """The port of host:port or of a dns target; None if it has none, empty for other targets of gRPC."""
    scheme, colon, target = address.partition(":")
    if colon and scheme in _GRPC_SCHEMES and scheme != "dns":
        return ""
    name = target.rpartition("/")[2] if colon and scheme == "dns" else address
    match = re.search(r"(^[^:]*|\]):([^:\]]+)$", name)
    return match[2] if match else None
