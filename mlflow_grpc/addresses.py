"""Addresses to listen on: validation, who can reach them, and values in the environment.

Rule of this module: `HOST` and `PORT` belong to other programs too (conda's compilers, shells). A value there that this
machine cannot listen on is ignored with a warning. Kubernetes sets variables for each Service, whatever its name is, so
any setting may get the URL of a Service, which is ignored too.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_PORT = 65_535


def host_alone(text: str) -> str:
    """Returns a host name or address without spaces and without the brackets of an IPv6 address.

    Raises:
        ValueError: The text is empty or `*`, or has a scheme, a path or a port.

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


def with_port(host: str, port: int) -> str:
    """Returns an address as clients write it: `127.0.0.1:80`, or `[::1]:80` for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_port(text: str) -> bool:
    """Returns True if a text is a port number; 0 is valid."""
    return text.isascii() and text.isdecimal() and int(text) <= MAX_PORT


def addresses_of(host: str, port: int = 0) -> list[tuple[socket.AddressFamily, socket.SocketKind, Any]]:
    """Resolves a host name or address for listening, to address families, socket types and addresses.

    Raises:
        OSError: The resolver does not know the name (socket.gaierror).

    """
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # IDNA: a label is empty or too long.
        raise socket.gaierror(socket.EAI_NONAME, f"not a host name, {error}") from error
    return list(dict.fromkeys((family, socket_type, address) for family, socket_type, _, _, address in resolved))


def allow_reuse(listener: socket.socket, *, by_others: bool = False) -> None:
    """Lets a socket listen on a port that connections of a former server still use.

    The kernel keeps a connection for a minute after a server has closed it (TIME_WAIT), with the options of the socket
    that accepted it, and compares them with those of a new socket. Both have SO_REUSEADDR, so a server can be restarted
    with any number of workers.

    Args:
        listener: The socket, before it is bound.
        by_others: True if other processes listen on the same port (SO_REUSEPORT).

    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if by_others:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def cannot_listen(host: str, port: int, reason: str, setting: str) -> str:
    """Returns the error for an address on which a server cannot listen.

    Args:
        host: The host.
        port: The port.
        reason: What the system says.
        setting: How to choose another port.

    """
    return (
        f"cannot listen on {host} port {port}: {reason}. If a server there is shutting down, wait until it has ended; "
        f"or choose another port with {setting}"
    )


def is_own_address(text: str) -> bool:
    """Returns True if this machine can listen on a host. Resolves it, and binds a free port for a moment."""
    try:
        for family, socket_type, address in addresses_of(host_alone(text)):
            with socket.socket(family, socket_type) as probe:
                probe.bind(address)
    except (OSError, ValueError):
        return False
    return True


def exposure(host: str) -> str:
    """Returns the addresses that others can reach, for a log line; empty if only this machine can.

    Resolves the host. An unknown host gives an empty text, because listening on it fails with an error of its own.
    """
    try:
        resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return ""
    # A link-local address is followed by the name of its link.
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in resolved]
    if any(address.is_unspecified for address in addresses):
        return f"all addresses of this machine ({host})"
    return host if any(not address.is_loopback for address in addresses) else ""


SHARED_NAMES: dict[str, Callable[[str], bool]] = {"host": is_own_address, "port": is_port}
"""Validators for settings whose environment variables other programs use too."""


_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def may_be_of_service(name: str) -> bool:
    """Returns True if Kubernetes sets a variable of this name in each pod for a Service whose name leads to it."""
    return name.endswith(("_PORT", "_HOST"))


def is_service_variable(name: str, value: str) -> bool:
    """Returns True for a variable such as NAME_PORT=tcp://10.0.0.1:80, which Kubernetes sets for a Service NAME."""
    return may_be_of_service(name) and _SERVICE_URL.match(value) is not None


def first_usable(
    setting: str, names: Iterable[str], environment: Mapping[str, str], is_usable: Callable[[str], bool]
) -> tuple[str | None, list[str]]:
    """Returns the value of a setting in the environment, and a log line for each value that was ignored.

    Args:
        setting: Name of the setting.
        names: Its environment variables, in the order of precedence.
        environment: Names and values.
        is_usable: Returns True if a value can be meant for this server.

    Returns:
        The first usable value, None if there is none, and the log lines. A value of one of this server's own variables
        counts as usable, so that a mistake there is reported, unless it is the URL of a Service.

    """
    lines: list[str] = []
    for name in names:
        value = environment.get(name, "")
        if value and not is_service_variable(name, value) and (name.startswith("MLFLOW_GRPC_") or is_usable(value)):
            return value, lines
        if value:
            lines.append(
                f"{name} is ignored: {value!r} is no {setting.replace('_', ' ')} to listen on. Set "
                f"MLFLOW_GRPC_{setting.upper()} or --{setting.replace('_', '-')} if the default does not suit"
            )
    return None, lines
