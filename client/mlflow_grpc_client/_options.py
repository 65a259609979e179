"""How the channel to a server is made and what goes with a call: TLS, limits, retries, metadata.

Rule of this module: what gRPC would take for something else, or refuse in words of its own, is refused
here with a ValueError or TypeError before anything is sent.
"""

import json
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import grpc

from mlflow_grpc_client._connection.targets import Target
from mlflow_grpc_client._wire import CONTENT_TYPE_KEY, MODEL_KEY, REQUEST_ID_KEY

DEFAULT_TIMEOUT_S = 60.0
"""The deadline of a call that is given none, in seconds; the time limit of `mlflow models serve`."""

HEALTH_TIMEOUT_S = 5.0
"""The deadline of a health check that is given none, in seconds."""

MOST_TIMEOUT_S = 365 * 86_400.0
"""The longest deadline in seconds. gRPC counts in nanoseconds and takes what overflows for a deadline long past."""

KEEPALIVE_TIME_S = 30.0
KEEPALIVE_TIMEOUT_S = 20.0
"""When a connection on which a call waits counts as dead; within the default deadline, so that a retry can follow.

Without it a connection that died silently (a NAT that forgot it, a host that lost power) would fail every
call until TCP gives up after some 15 minutes. The server permits pings each 20 s.
"""

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "MLflow"},
                    {"service": "model_grpc_service.ModelgRPCService"},
                    # What typed calls ask before the first one.
                    {"service": "mlflow_grpc.v1.Models", "method": "GetModel"},
                    {"service": "grpc.reflection.v1.ServerReflection"},
                    {"service": "grpc.reflection.v1alpha.ServerReflection"},
                ],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    # RESOURCE_EXHAUSTED is an overloaded server, which says in its trailers after which pause to
                    # try again; where it means that something is too large, the server says not to.
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ],
        # While more than a third of all attempts fail, no retries: they would only add to the load (gRFC A6).
        # The first ten calls that fail are still tried again in full.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
    }
)

Metadata = tuple[tuple[str, str | bytes], ...]
MoreMetadata = Mapping[str, str | bytes]
ChannelOptions = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Of gRPC's channels, by name: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""


class CallOptions(TypedDict, total=False):
    """What may be given with a call, by keyword."""

    timeout_s: float | None
    """The deadline of this call in seconds; the client's if left out."""
    request_id: str | None
    """The id under which the server logs the call; the server makes one if left out."""
    model: str | None
    """Which of several models: its name, or `name/version`. Not needed with one model or a default one."""
    metadata: MoreMetadata | None
    """Further metadata; the values of keys that end in `-bin` are bytes."""


@dataclass(frozen=True, slots=True)
class TLS:
    """Files (PEM) for an encrypted connection. With none, the system's authorities are trusted."""

    ca: Path | str | None = None
    """The authorities to trust instead of the system's."""
    cert: Path | str | None = None
    """The client's certificate chain, for mutual TLS; needs `key`."""
    key: Path | str | None = None
    """The key of `cert`, without a passphrase."""
    server_name: str | None = None
    """The name that the server's certificate must have, if not the one that is connected to."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads and checks the files; gRPC itself would only say that no connection can be made.

        Raises:
            ValueError: A file does not hold what it should, or one of `cert` and `key` is missing.
            OSError: A file cannot be read.

        """
        if (self.cert is None) != (self.key is None):
            raise ValueError("TLS: cert and key go together")
        ca, key, cert = (
            Path(file).read_bytes() if file is not None else None for file in (self.ca, self.key, self.cert)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError:
                raise ValueError(f"TLS: {self.ca} does not hold certificates in PEM format") from None
        if self.cert is not None:
            try:
                # A password, even a wrong one, keeps OpenSSL from asking for it on the terminal.
                context.load_cert_chain(self.cert, self.key, password="")
            except ssl.SSLError:
                raise ValueError(
                    f"TLS: {self.cert} and {self.key} are not a certificate and its key, "
                    "in PEM format and without a passphrase"
                ) from None
        return grpc.ssl_channel_credentials(ca, key, cert)


def checked_timeout(timeout_s: float) -> float:
    """The timeout, if a call can have it.

    Raises:
        ValueError: It is not above 0, not a number, or longer than a year. grpc.aio takes 0 for no deadline.

    """
    if not 0 < timeout_s <= MOST_TIMEOUT_S:
        raise ValueError(f"the timeout is a number of seconds above 0 and up to a year; not {timeout_s!r}")
    return timeout_s


def checked_tls(tls: TLS | bool | None, target: Target) -> TLS | None:
    """The TLS of a client; None for none.

    Raises:
        ValueError: The address says something else, or is a list of several hosts, of which gRPC checks one name alone.
        TypeError: It is none of the types.

    """
    if tls is not None and not isinstance(tls, TLS | bool):
        raise TypeError(f"tls is True, False, or TLS(...) with files; not {tls!r}")
    if tls is not None and target.encrypted is not None and bool(tls) is not target.encrypted:
        said = "grpcs:// is with TLS, and tls=False" if target.encrypted else "grpc:// is without TLS, and tls is given"
        raise ValueError(f"{said}: {target.text}")
    if not (target.encrypted if tls is None else tls):
        return None
    made = tls if isinstance(tls, TLS) else TLS()
    if target.is_list and not made.server_name:
        if not target.common_host:
            raise ValueError(
                "TLS: gRPC checks the certificates of a list for one name: give it (server_name, --tls-server-name)"
            )
        return replace(made, server_name=target.common_host)
    return made


def checked_channel_options(given: ChannelOptions) -> dict[str, Any]:
    """Options of gRPC's channels by name.

    Raises:
        TypeError: They are neither a mapping nor pairs, or a name is no text.

    """
    try:
        found = dict(given)
    except (TypeError, ValueError):
        raise TypeError(
            f"channel_options are a dict or pairs, such as {{'grpc.keepalive_time_ms': 30_000}}; not {given!r}"
        ) from None
    for name, value in found.items():
        if not isinstance(name, str) or value is None or isinstance(value, float):
            raise TypeError(f"a channel option is a name with a text or a whole number; not {name!r}: {value!r}")
    return found


def channel_options(
    max_message_bytes: int, tls: TLS | None, target: Target, more: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Options for grpcio's channel: message size, keepalive, retries and balancing; those in `more` go first."""
    options: dict[str, Any] = {
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.max_send_message_length": max_message_bytes,
        "grpc.keepalive_time_ms": int(KEEPALIVE_TIME_S * 1000),
        "grpc.keepalive_timeout_ms": int(KEEPALIVE_TIMEOUT_S * 1000),
        # gRPC also pings to measure the bandwidth, and sends no keepalive while such a ping is unanswered.
        "grpc.http2.ping_timeout_ms": int(KEEPALIVE_TIMEOUT_S * 1000),
        "grpc.service_config": service_config(balances=target.balances),
    }
    if tls and tls.server_name:
        options["grpc.ssl_target_name_override"] = tls.server_name
    elif target.authority:
        options["grpc.default_authority"] = target.authority
    return list({**options, **more}.items())


def service_config(*, balances: bool) -> str:
    """The service config of gRPC: retries, and with several servers one call to each in turn."""
    if not balances:
        return _SERVICE_CONFIG
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], **json.loads(_SERVICE_CONFIG)})


def call_metadata(
    content_type: str | None, request_id: str | None, model: str | None, more: MoreMetadata | None
) -> Metadata:
    """Metadata of a call.

    Raises:
        ValueError: A key or a text is not one that gRPC can carry.
        TypeError: A value is not of the type that its key asks for.

    """
    named = {CONTENT_TYPE_KEY: content_type, REQUEST_ID_KEY: request_id, MODEL_KEY: model}
    said = {key: value for key, value in named.items() if value is not None}
    pairs = tuple({**(more or {}), **said}.items())
    for key, value in pairs:
        if not isinstance(key, str) or not re.fullmatch("[0-9a-z_.-]+", key):
            raise ValueError(f"a metadata key has lower case letters, digits and _ . - only; not {key!r}")
        if not isinstance(value, bytes if key.endswith("-bin") else str):
            raise TypeError(
                f"metadata {key!r}: keys that end in -bin have bytes, others str; not {type(value).__name__}"
            )
        if isinstance(value, str) and not re.fullmatch("[ -~]*", value):
            raise ValueError(f"metadata {key!r} has characters other than printable ASCII")
    return pairs
