"""What a client connects to: one address, several in a list, or a target in gRPC's name syntax.

Rule of this module: it reads what was given, and asks no resolver. What gRPC could not use, or would use in a way that
nobody expects, is a ValueError that says what to write.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mlflow_grpc_client._connection.addresses import checked_address, host_and_port, scheme_of

Addresses = str | Iterable[str]
"""`host:port`, several of them with commas between or in a list, a grpc:// or grpcs:// URL, or a target of gRPC's."""

_URL = re.compile("(grpcs?)://(.*)", re.IGNORECASE)
_SOCKET_SCHEMES = {"ipv4": 4, "ipv6": 6}
_SINGLE = frozenset({"unix", "unix-abstract", "vsock", "xds", "google-c2p", "google-c2p-experimental"})
"""Schemes of targets that have one address, or a balancing of their own."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the calls of a client go."""

    text: str
    """As it is named to people."""
    name: str
    """In gRPC's name syntax; empty if `hosts` have to be looked up first."""
    hosts: tuple[tuple[str, str], ...] = ()
    """Hosts and ports, as far as they are known."""
    encrypted: bool | None = None
    """What the URL says about TLS; None if there is none."""
    balances: bool = False
    """Whether there may be several servers behind it."""

    @property
    def is_list(self) -> bool:
        """Whether several addresses were given."""
        return len(self.hosts) > 1

    @property
    def common_host(self) -> str:
        """The host that all addresses of a list have; empty if they have several."""
        hosts = {host for host, _ in self.hosts}
        return hosts.pop() if len(hosts) == 1 else ""

    @property
    def authority(self) -> str:
        """What the calls name as their server; empty for what gRPC makes of the target.

        Of a list gRPC would make a text with commas, which is no authority to other servers and proxies.
        """
        return joined(*self.hosts[0]) if self.is_list else ""


def target_of(given: Addresses) -> Target:
    """What was given for an address.

    Raises:
        ValueError: It is no address, or the addresses of a list do not go together.
        TypeError: It is neither a text nor an iterable of texts.

    """
    if isinstance(given, str):
        scheme = scheme_of(given)
        if scheme:
            return _of_grpc(given, scheme)
        several = "," in given
        parts = [part.strip() if several else part for part in given.split(",")]
    else:
        parts = list(given) if isinstance(given, Iterable) else [given]
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"an address is a text, such as 'localhost:50051', or a list of such; not {part!r}")
        if len(parts) > 1 and scheme_of(part):
            raise ValueError(f"a list has addresses in the form host:port; not {part!r}")
    if not parts:
        raise ValueError("the list of addresses is empty: give one or more, such as localhost:50051")
    return _of_addresses(list(dict.fromkeys(parts)))


def _of_addresses(parts: list[str]) -> Target:
    found = [_URL.fullmatch(part) for part in parts]
    schemes = {match[1].lower() if match else "" for match in found}
    if len(schemes) > 1:
        raise ValueError(f"some of the addresses are with TLS (grpcs://) and some not: {', '.join(parts)}")
    addresses = [
        checked_address(match[2].removesuffix("/") if match else part) for match, part in zip(found, parts, strict=True)
    ]
    if len(addresses) == 1 and scheme_of(addresses[0]):
        return _of_grpc(addresses[0], scheme_of(addresses[0]))
    hosts = tuple(dict.fromkeys(host_and_port(address) for address in addresses))
    text = ",".join(joined(*each) for each in hosts)
    encrypted = {"grpc": False, "grpcs": True}.get(schemes.pop())
    if len(hosts) == 1:
        # Both addresses of localhost are one machine, and behind an IP address is one server or a balancer.
        balances = not _is_ip(hosts[0][0]) and hosts[0][0].lower() != "localhost"
        return Target(text, addresses[0], hosts, encrypted, balances)
    name = "" if any(not _is_ip(host) for host, _ in hosts) else name_of(hosts)
    return Target(text, name, hosts, encrypted, balances=True)


def _of_grpc(given: str, scheme: str) -> Target:
    """A target in gRPC's name syntax."""
    checked_address(given)
    if scheme not in _SOCKET_SCHEMES:
        if scheme == "dns" and "," in given:
            raise ValueError(f"dns: has one name; give several as a list of host:port, not {given!r}")
        return Target(given, given, balances=scheme not in _SINGLE)
    hosts = []
    for address in given.partition(":")[2].split(","):
        host, port = host_and_port(address)
        is_of_scheme = _is_ip(host) and ipaddress.ip_address(host.partition("%")[0]).version == _SOCKET_SCHEMES[scheme]
        if not is_of_scheme or not port:
            raise ValueError(
                f"{scheme}: has IP addresses with ports, such as {name_of([_EXAMPLES[scheme]])}; not {given!r}"
            )
        hosts.append((host, port))
    return Target(given, given, tuple(hosts), balances=len(hosts) > 1)


_EXAMPLES = {"ipv4": ("10.0.0.1", "50051"), "ipv6": ("::1", "50051")}


def name_of(addresses: Iterable[tuple[str, str]]) -> str:
    """The target of gRPC's for IP addresses and ports, of both versions of IP or of one."""
    found = [(ipaddress.ip_address(host.partition("%")[0]), host, port) for host, port in addresses]
    if all(address.version == 4 for address, _, _ in found):  # noqa: PLR2004 - the version
        return "ipv4:" + ",".join(joined(host, port) for _, host, port in found)
    # gRPC takes addresses of one version only; those of version 4 have a form of version 6 (RFC 4291, 2.5.5.2).
    return "ipv6:" + ",".join(
        joined(host if address.version == 6 else f"::ffff:{host}", port)  # noqa: PLR2004
        for address, host, port in found
    )


def joined(host: str, port: str) -> str:
    """host:port, with an address of IPv6 in brackets."""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if port else host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
