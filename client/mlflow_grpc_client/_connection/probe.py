"""A connection to a single address, to find out why calls to a name with several addresses fail.

Rule of this module: it waits, so a client for asyncio runs it in a thread.
"""

from typing import Any

import grpc

from mlflow_grpc_client import _wire

PROBE_S = 0.5
"""Maximum time for the connection, in seconds. Both addresses that are tried so are those of this machine."""


def status_at(address: str, *, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, Any]]) -> str:
    """Returns gRPC's text for a failed connection to an IP address and port; empty if there is one, or none in time."""
    channel = (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    )
    with channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_wire.HEALTH_CHECK)
        try:
            method(b"", timeout=PROBE_S)
        except grpc.RpcError as error:
            return str(error.details()) if error.code() is grpc.StatusCode.UNAVAILABLE else ""
    return ""
