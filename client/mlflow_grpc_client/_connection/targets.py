"""The target of a client: an address, a list of addresses, or a target in gRPC's name syntax.

Rule of this module: it parses, and resolves no name. An address that gRPC would refuse or misread is a ValueError that
says what to write.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlflow_grpc_client._connection.addresses import checked_address, host_and_port, joined, scheme_of

Addresses = str | Iterable[str]
"""`host:port`, several in a list or separated by commas, a grpc:// or grpcs:// URL, or a gRPC target."""

_URL = re.compile("(grpcs?)://(.*)", re.IGNORECASE)
_IP_VERSIONS = {"ipv4": 4, "ipv6": 6}
_UNBALANCED = frozenset({"unix", "unix-abstract", "vsock", "xds", "google-c2p", "google-c2p-experimental"})
"""Schemes of targets with a single address, or with a load balancer of their own."""


@dataclass(frozen=True, slots=True)
class Target:
    """The servers of a client."""

    text: str
    """The addresses, for people."""
    name: str
    """The target in gRPC's name syntax; empty if names in `hosts` must be resolved first."""
    hosts: tuple[tuple[str, str], ...] = ()
    """Hosts and ports, as far as they are known."""
    encrypted: bool | None = None
    """True if the URL asks for TLS; None for other addresses."""
    balances: bool = False
    """True if there can be several servers behind the target."""

    @property
    def is_list(self) -> bool:
        """True if this is a list of several addresses."""
        return len(self.hosts) > 1

    @property
    def common_host(self) -> str:
        """The host that all addresses of a list share; empty for different hosts."""
        hosts = {host for host, _ in self.hosts}
        return hosts.pop() if len(hosts) == 1 else ""

    @property
    def authority(self) -> str:
        """The authority of calls to a list; empty for other targets, where gRPC sets it.

        gRPC would make a text with commas of a list, which other servers and proxies do not accept.
        """
        return joined(*self.hosts[0]) if self.is_list else ""


def target_of(address: Any) -> Target:
    """The target for an address or a list of addresses."""
    if isinstance(address, str):
        if scheme := scheme_of(address):
            return _grpc_target(address, scheme)
        texts = [text.strip() for text in address.split(",")] if "," in address else [address]
    else:
        texts = list(address) if isinstance(address, Iterable) else [address]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"an address is a text, such as 'localhost:50051', or a list of such; not {text!r}")
        if len(texts) > 1 and scheme_of(text):
            raise ValueError(f"a list has addresses in the form host:port; not {text!r}")
    if not texts:
        raise ValueError("the list of addresses is empty: give one or more, such as localhost:50051")
    return _host_target(list(dict.fromkeys(texts)))


def _host_target(texts: list[str]) -> Target:
    urls = [_URL.fullmatch(text) for text in texts]
    schemes = {url[1].lower() if url else "" for url in urls}
    if len(schemes) > 1:
        raise ValueError(f"some of the addresses are with TLS (grpcs://) and some not: {', '.join(texts)}")
    addresses = [
        checked_address(url[2].removesuffix("/") if url else text) for url, text in zip(urls, texts, strict=True)
    ]
    if len(addresses) == 1 and scheme_of(addresses[0]):
        return _grpc_target(addresses[0], scheme_of(addresses[0]))
    hosts = tuple(dict.fromkeys(host_and_port(address) for address in addresses))
    text = ",".join(joined(host, port) for host, port in hosts)
    encrypted = {"grpc": False, "grpcs": True}.get(schemes.pop())
    if len(hosts) == 1:
        # Both addresses of localhost are the same machine, and an IP address is a single server or a balancer.
        balances = not ip_version(hosts[0][0]) and hosts[0][0].lower() != "localhost"
        return Target(text, addresses[0], hosts, encrypted, balances)
    name = "" if any(not ip_version(host) for host, _ in hosts) else name_of(hosts)
    return Target(text, name, hosts, encrypted, balances=True)


def _grpc_target(text: str, scheme: str) -> Target:
    """A target in gRPC's name syntax."""
    checked_address(text)
    if scheme not in _IP_VERSIONS:
        if scheme == "dns" and "," in text:
            raise ValueError(f"dns: has one name; give several as a list of host:port, not {text!r}")
        return Target(text, text, balances=scheme not in _UNBALANCED)
    hosts = []
    for address in text.partition(":")[2].split(","):
        host, port = host_and_port(address)
        if ip_version(host) != _IP_VERSIONS[scheme] or not port:
            example = name_of([_EXAMPLES[scheme]])
            raise ValueError(f"{scheme}: has IP addresses with ports, such as {example}; not {text!r}")
        hosts.append((host, port))
    return Target(text, text, tuple(hosts), balances=len(hosts) > 1)


_EXAMPLES = {"ipv4": ("10.0.0.1", "50051"), "ipv6": ("::1", "50051")}


def name_of(addresses: Iterable[tuple[str, str]]) -> str:
    """The gRPC target for IP addresses and ports of either version."""
    parsed = [(ip_version(host), host, port) for host, port in addresses]
    if all(version == 4 for version, _, _ in parsed):  # noqa: PLR2004
        return "ipv4:" + ",".join(joined(host, port) for _, host, port in parsed)
    # gRPC takes addresses of a single version. IPv4 addresses have a form in IPv6 (RFC 4291, 2.5.5.2).
    return "ipv6:" + ",".join(
        joined(host if version == 6 else f"::ffff:{host}", port)  # noqa: PLR2004
        for version, host, port in parsed
    )


def ip_version(host: str) -> int:
    """4 or 6 for an IP address, which can have a zone; 0 for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).version
    except ValueError:
        return 0
