"""Options of channels and calls: TLS, limits, retries, metadata.

Rule of this module: an option that gRPC would misread, or refuse without a clear message, is a ValueError or TypeError
before anything is sent.
"""

import json
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import grpc
from _mlflow_grpc_protocol.metadata import CONTENT_TYPE_KEY, MODEL_KEY, REQUEST_ID_KEY

from mlflow_grpc_client._connection.targets import Target

DEFAULT_TIMEOUT_S = 60.0
"""Default timeout of a call in seconds, which is also that of `mlflow models serve`."""

HEALTH_TIMEOUT_S = 5.0
"""Default timeout of a health check in seconds."""

MAX_TIMEOUT_S = 365 * 86_400.0
"""Maximum timeout in seconds. gRPC counts nanoseconds, and reads an overflow as a deadline in the past."""

MAX_SEND_OPTION = "grpc.max_send_message_length"
"""The channel option with the maximum size of a request in bytes; -1 is no limit."""

RETRY_PAUSES_S = (0.1, 0.2, 0.4, 0.8)
"""Pauses before the retries of a call in seconds."""

KEEPALIVE_TIME_S = 30.0
KEEPALIVE_TIMEOUT_S = 20.0
"""Seconds until the first ping on a connection with a running call, and until an unanswered ping closes it.

Without pings, a connection that died silently (a NAT that forgot it, a host that lost power) would fail every call
until TCP gives up after some 15 minutes. Both fit into the default timeout, so that a retry can follow. The server
permits a ping every 20 s.
"""

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "MLflow"},
                    {"service": "model_grpc_service.ModelgRPCService"},
                    # Typed calls need these before the first RPC of a model.
                    {"service": "mlflow_grpc.v1.Models", "method": "GetModel"},
                    {"service": "grpc.reflection.v1.ServerReflection"},
                ],
                "retryPolicy": {
                    "maxAttempts": 1 + len(RETRY_PAUSES_S),
                    "initialBackoff": f"{RETRY_PAUSES_S[0]}s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    # An overloaded server sends RESOURCE_EXHAUSTED with the pause before a retry in its trailers.
                    # For a message over a limit it sends a trailer that forbids a retry.
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ],
        # No retries while more than a third of all attempts fail, because they would add to the load (gRFC A6).
        # The first ten calls that fail are still retried in full.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
    }
)

Metadata = tuple[tuple[str, str | bytes], ...]
MoreMetadata = Mapping[str, str | bytes]
ChannelOptions = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Options of gRPC's channels by name: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""


class CallOptions(TypedDict, total=False):
    """The keyword options of a call."""

    timeout_s: float | None
    """Timeout of this call in seconds. The default is the client's."""
    request_id: str | None
    """The id of the call in the server's log. The server creates one by default."""
    model: str | None
    """The model: `name` or `name/version`. Not needed with a single or a default model."""
    metadata: MoreMetadata | None
    """Further metadata. Values of keys that end in `-bin` are bytes."""


@dataclass(frozen=True, slots=True)
class TLS:
    """PEM files for an encrypted connection. Without any, the system's authorities are trusted."""

    ca: Path | str | None = None
    """The authorities to trust instead of the system's."""
    cert: Path | str | None = None
    """The client's certificate chain, for mutual TLS; needs `key`."""
    key: Path | str | None = None
    """The key of `cert`, without a passphrase."""
    server_name: str | None = None
    """The name in the server's certificate, if it differs from the host of the address."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads and checks the files. gRPC itself would only report a failed connection.

        Raises:
            ValueError: A file is invalid, or only one of `cert` and `key` is given.
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
                # Any password keeps OpenSSL from a prompt on the terminal.
                context.load_cert_chain(self.cert, self.key, password="")
            except ssl.SSLError:
                raise ValueError(
                    f"TLS: {self.cert} and {self.key} are not a certificate and its key, "
                    "in PEM format and without a passphrase"
                ) from None
        return grpc.ssl_channel_credentials(ca, key, cert)


def checked_timeout(timeout_s: float) -> float:
    """The timeout; raises ValueError unless it is above 0 and up to a year. grpc.aio reads 0 as no deadline."""
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ValueError(f"the timeout is a number of seconds above 0 and up to a year; not {timeout_s!r}")
    return timeout_s


def checked_tls(tls: TLS | bool | None, target: Target) -> TLS | None:
    """The TLS files of a client; None for an unencrypted connection.

    Raises ValueError if the scheme of the address contradicts `tls`, or for several hosts without a server name,
    because gRPC checks all certificates for a single name.
    """
    if tls is not None and not isinstance(tls, TLS | bool):
        raise TypeError(f"tls is True, False, or TLS(...) with files; not {tls!r}")
    if tls is not None and target.encrypted is not None and bool(tls) is not target.encrypted:
        conflict = (
            "grpcs:// is with TLS, and tls=False" if target.encrypted else "grpc:// is without TLS, and tls is given"
        )
        raise ValueError(f"{conflict}: {target.text}")
    if not (target.encrypted if tls is None else tls):
        return None
    files = tls if isinstance(tls, TLS) else TLS()
    if target.is_list and not files.server_name:
        if not target.common_host:
            raise ValueError(
                "TLS: gRPC checks the certificates of a list for one name: give it (server_name, --tls-server-name)"
            )
        return replace(files, server_name=target.common_host)
    return files


def checked_channel_options(options: Any) -> dict[str, Any]:
    """Options of gRPC's channels by name."""
    try:
        by_name = dict(options)
    except (TypeError, ValueError):
        raise TypeError(
            f"channel_options are a dict or pairs, such as {{'grpc.keepalive_time_ms': 30_000}}; not {options!r}"
        ) from None
    for name, value in by_name.items():
        if not isinstance(name, str) or value is None or isinstance(value, float):
            raise TypeError(f"a channel option is a name with a text or a whole number; not {name!r}: {value!r}")
    return by_name


def channel_options(
    max_message_bytes: int, tls: TLS | None, target: Target, overrides: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Options for a channel of grpcio: message size, keepalive, retries and load balancing."""
    options: dict[str, Any] = {
        "grpc.max_receive_message_length": max_message_bytes,
        MAX_SEND_OPTION: max_message_bytes,
        "grpc.keepalive_time_ms": int(KEEPALIVE_TIME_S * 1000),
        "grpc.keepalive_timeout_ms": int(KEEPALIVE_TIMEOUT_S * 1000),
        # gRPC also pings to measure bandwidth, and sends no keepalive ping until that ping is answered.
        "grpc.http2.ping_timeout_ms": int(KEEPALIVE_TIMEOUT_S * 1000),
        "grpc.service_config": service_config(balances=target.balances),
    }
    if tls and tls.server_name:
        options["grpc.ssl_target_name_override"] = tls.server_name
    elif target.authority:
        options["grpc.default_authority"] = target.authority
    return list({**options, **overrides}.items())


def service_config(*, balances: bool) -> str:
    """The gRPC service config with the retry policy, and round-robin balancing for several servers."""
    if not balances:
        return _SERVICE_CONFIG
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], **json.loads(_SERVICE_CONFIG)})


def call_metadata(
    content_type: str | None, request_id: str | None, model: str | None, metadata: MoreMetadata | None
) -> Metadata:
    """The metadata of a call."""
    by_key = {CONTENT_TYPE_KEY: content_type, REQUEST_ID_KEY: request_id, MODEL_KEY: model}
    options = {key: value for key, value in by_key.items() if value is not None}
    pairs = tuple({**(metadata or {}), **options}.items())
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
