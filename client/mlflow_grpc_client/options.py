"""How the channel to a server is made: TLS, limits, retries."""

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

DEFAULT_TIMEOUT_S = 60.0
"""The deadline of a call that is given none, in seconds; the time limit of `mlflow models serve`."""

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "MLflow"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # While most calls fail, no retries: they would only add to the load (gRFC A6).
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)


@dataclass(frozen=True, slots=True)
class TLS:
    """Files (PEM) for an encrypted channel. With none, the system's authorities are trusted."""

    ca: Path | str | None = None
    """The authorities to trust instead of the system's."""
    cert: Path | str | None = None
    """The client's certificate chain, for mutual TLS; needs `key`."""
    key: Path | str | None = None
    server_name: str | None = None
    """The name that the server's certificate must have, if not the one that is connected to."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            ValueError: A certificate without a key, or the other way round.
            OSError: A file cannot be read.

        """
        if (self.cert is None) != (self.key is None):
            raise ValueError("TLS: cert and key go together")
        ca, key, cert = (Path(file).read_bytes() if file else None for file in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


def channel_options(max_message_bytes: int, tls: TLS | None) -> list[tuple[str, str | int]]:
    """Options for grpcio's channel: messages up to a size, and retries on UNAVAILABLE."""
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.service_config", _SERVICE_CONFIG),
    ]
    if tls and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def call_metadata(
    content_type: str | None, request_id: str | None, more: dict[str, str] | None
) -> tuple[tuple[str, str], ...]:
    """Metadata of a call."""
    named = {"mlflow-content-type": content_type, "x-request-id": request_id, **(more or {})}
    return tuple((key, value) for key, value in named.items() if value is not None)
