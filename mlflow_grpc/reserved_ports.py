"""Reservation of the ports that several workers listen on.

Rule of this module: the supervisor of the workers uses it. It imports neither grpc nor an HTTP server.
"""

import socket

from mlflow_grpc.addresses import addresses_of, allow_reuse, cannot_listen
from mlflow_grpc.errors import AddressUnavailable, StartError
from mlflow_grpc.settings import Settings, spelling


def reserve_ports(settings: Settings) -> tuple[list[socket.socket], Settings]:
    """Reserves the ports for as long as the returned sockets are open.

    Args:
        settings: Hosts and ports; port 0 stands for a free port.

    Returns:
        The sockets, and settings with the numbers of the ports.

    Raises:
        AddressUnavailable: A port is taken, or an address is not this machine's.
        StartError: A host is unknown.

    """
    reserved = [_reserve(settings, "host", settings.host, settings.port, f"{spelling('port')} or PORT")]
    ports = {"port": reserved[0].getsockname()[1]}
    if settings.http_port is not None:
        setting, host = ("http_host", settings.http_host) if settings.http_host else ("host", settings.host)
        try:
            spellings = f"{spelling('http_port')} or MLFLOW_GRPC_HTTP_PORT"
            reserved.append(_reserve(settings, setting, host, settings.http_port, spellings))
        except StartError:
            reserved[0].close()
            raise
        ports["http_port"] = reserved[1].getsockname()[1]
    return reserved, settings.model_copy(update=ports)


def _reserve(settings: Settings, setting: str, host: str, port: int, port_setting: str) -> socket.socket:
    """Binds a socket that does not listen.

    A first socket binds without SO_REUSEPORT, because with it another program's server would share the port.
    """
    try:
        family, socket_type, address = addresses_of(host, port)[0]
    except OSError as error:
        raise StartError(f"{settings.source(setting)} {host}: no such host ({error.strerror})") from error
    try:
        with socket.socket(family, socket_type) as probe:
            allow_reuse(probe)
            probe.bind(address)
            probe.listen()
            free: int = probe.getsockname()[1]
        reserved = socket.socket(family, socket_type)
        allow_reuse(reserved, by_others=True)
        reserved.bind((address[0], free, *address[2:]))
    except OSError as error:
        raise AddressUnavailable(cannot_listen(host, port, str(error.strerror), port_setting)) from error
    return reserved
