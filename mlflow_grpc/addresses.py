"""What can be an address to listen on, who reaches it, and what in the environment is meant to be one.

Rule of this module: `HOST` and `PORT` belong to other programs too (conda's compilers, shells, Kubernetes), so a value
that this machine cannot listen on is not an error there.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_PORT = 65_535


def host_alone(text: str) -> str:
    """A host name or address; spaces, and the brackets of an IPv6 address, as in URLs, may stand around it.

    Raises:
        ValueError: There is nothing in it, or more: a scheme, a path or a port; or it stands for all addresses in the
            words of others.

    """
    host = text.strip()
    host = host[1:-1].strip() if host.startswith("[") and host.endswith("]") else host
    if host in ("", "*"):
        raise ValueError("must be a name or an address; 0.0.0.0 stands for all of IPv4, :: for all")
    if "/" in host:
        raise ValueError("must be a name or an address alone, without a scheme or a path")
    if re.search(r"^[^:]+:\d+$|\]:\d+$", host):
        raise ValueError("must be a name or an address alone; the port goes to --port")
    return host


def is_port(text: str) -> bool:
    """Whether a text is the number of a port; 0 is one."""
    return text.isascii() and text.isdecimal() and int(text) <= MAX_PORT


def addresses_of(host: str, port: int = 0) -> list[tuple[socket.AddressFamily, socket.SocketKind, Any]]:
    """What a host name or address and a port stand for when listening: address families, socket types and addresses.

    Raises:
        OSError: The resolver does not know the name; socket.gaierror says why.

    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # Of IDNA: a label that is empty or too long.
        raise socket.gaierror(socket.EAI_NONAME, f"not a host name, {error}") from error
    return list(dict.fromkeys((family, kind, address) for family, kind, _, _, address in found))


def is_own_address(text: str) -> bool:
    """Whether this machine can listen on a host. Asks the resolver, and binds a free port for a moment."""
    try:
        for family, kind, address in addresses_of(host_alone(text)):
            with socket.socket(family, kind) as probe:
                probe.bind(address)
    except (OSError, ValueError):
        return False
    return True


def exposure(host: str) -> str:
    """Who can reach a server that listens on a host: "" this machine alone, else the addresses, for a log line.

    Asks the resolver. A host that is not known is nobody's: listening on it fails, and says why.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return ""
    # An address of one link has the link's name behind it.
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    if any(address.is_unspecified for address in addresses):
        return f"all addresses of this machine ({host})"
    return host if any(not address.is_loopback for address in addresses) else ""


SHARED_NAMES: dict[str, Callable[[str], bool]] = {"host": is_own_address, "port": is_port}
"""By setting whose environment names are not this server's alone: whether a value can be meant for it."""


def first_usable(
    setting: str, names: Iterable[str], environment: Mapping[str, str], is_usable: Callable[[str], bool]
) -> tuple[str | None, list[str]]:
    """The value that the environment has for a setting, and why others were ignored.

    Args:
        setting: Its name.
        names: Its environment names, the one that wins first.
        environment: Names and values.
        is_usable: Whether a value can be meant for this server.

    Returns:
        The first usable value, None if there is none, and a line for each value before it that is not usable. A value
        under one of this server's own names is usable whatever it is, so that a mistake there is reported.

    """
    lines: list[str] = []
    for name in names:
        value = environment.get(name, "")
        # Kubernetes sets NAME_PORT=tcp://... in each pod for each Service of the namespace.
        is_own_name = name.startswith("MLFLOW_GRPC_") and not value.startswith(("tcp://", "udp://"))
        if value and (is_own_name or is_usable(value)):
            return value, lines
        if value:
            lines.append(
                f"{name} is ignored: {value!r} is no {setting} to listen on. Set MLFLOW_GRPC_{setting.upper()} or "
                f"--{setting} if the default does not suit"
            )
    return None, lines
