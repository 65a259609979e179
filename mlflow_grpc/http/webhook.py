"""The route for MLflow's webhooks, which are a hint to query the registry now.

Rule of this module: an event is checked before it is parsed, and nothing in it is believed except that it is worth a
query. Source of the headers and the signature: `mlflow.webhooks.delivery`. Source of the maximum age: MLflow's
documentation of webhooks, and the specification at https://www.standardwebhooks.com.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.errors import InvalidPayload, PermissionDenied, ServingError
from mlflow_grpc.http.errors import error_of
from mlflow_grpc.http.response import CLOSE
from mlflow_grpc.http.route import JsonRoute
from mlflow_grpc.http.small_body import read_small_body
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

PATH = "/webhooks/mlflow"

SIGNATURE, TIMESTAMP, DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
"""Headers of an event."""

SIGNATURE_VERSION = "v1"

MAX_AGE_S = 300.0
"""Maximum difference between the time of an event and that of this machine, in seconds."""

LOG_PAUSE_S = 60.0
"""Minimum time between two log lines about refused events, in seconds."""

Hint = Callable[[str, str | None], int]
"""Takes the name of a registered model and an alias, or None for any; returns the number of models that follow it."""


def routes(secret: Path | None, hint: Hint) -> list[BaseRoute]:
    """Returns the route; none without a secret.

    Args:
        secret: The file with the secret of the webhook.
        hint: Makes the models that follow a registered model query the registry now.

    """
    if secret is None:
        return []

    logged_at = -LOG_PAUSE_S

    async def event(request: Request) -> Response:
        nonlocal logged_at
        try:
            body = await read_small_body(request)
            check(request.headers, body, await in_daemon_thread(lambda: secret_of(secret), "read-secret"), time.time())
            name, alias = subject_of(body)
        except ServingError as error:
            if (now := time.monotonic()) >= logged_at + LOG_PAUSE_S:  # Any caller can cause such lines.
                logger.warning("a webhook event is refused: %s", error.message)
                logged_at = now
            status, content = error_of(error)
            return JSONResponse(content, status, headers={CLOSE[0].decode(): CLOSE[1].decode()})
        count = hint(name, alias) if name else 0
        return JSONResponse({"models": count}, HTTPStatus.ACCEPTED)

    return [JsonRoute(PATH, event, methods=["POST"])]


def secret_of(file: Path) -> bytes:
    """Returns the secret in a file, without the blanks and line breaks around it.

    Raises:
        PermissionDenied: The file cannot be read or is empty, so that no event can be checked.

    """
    try:
        secret = file.read_bytes().strip()
    except OSError:
        secret = b""
    if not secret:
        raise PermissionDenied("The server cannot read its secret for webhooks (--webhook-secret).")
    return secret


def check(headers: Mapping[str, str], body: bytes, secret: bytes, now: float) -> None:
    """Checks that an event was signed with the secret, recently.

    Args:
        headers: Headers of the request.
        body: Body of the request.
        secret: The secret of the webhook.
        now: The current time, in seconds since 1970.

    Raises:
        PermissionDenied: The signature is missing or wrong, or the event is too old, or from the future.

    """
    signature, timestamp, delivery = (headers.get(name, "") for name in (SIGNATURE, TIMESTAMP, DELIVERY))
    version, _, encoded = signature.partition(",")
    if version != SIGNATURE_VERSION:
        raise PermissionDenied(
            f"The event has no signature of version {SIGNATURE_VERSION}. Create the webhook in MLflow with the secret "
            "of this server."
        )
    signed = f"{delivery}.{timestamp}.".encode("latin-1") + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest())
    if not hmac.compare_digest(expected, encoded.encode("latin-1")):
        raise PermissionDenied(
            "The signature of the event is wrong. Create the webhook with the secret of this server."
        )
    # The timestamp is signed, so it is a number if the sender is MLflow.
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > MAX_AGE_S:
        raise PermissionDenied(
            f"The event is not of the last {MAX_AGE_S:g} seconds. If it is no repetition, compare the clocks of "
            "MLflow's server and of this one."
        )


def subject_of(body: bytes) -> tuple[str, str | None]:
    """Returns the registered model and the alias of an event; the model is empty if the event has none.

    Raises:
        InvalidPayload: The body is not an event.

    """
    try:
        event: Any = json.loads(body)
    except (ValueError, RecursionError):
        event = None
    data = event.get("data") if isinstance(event, dict) else None
    if not isinstance(data, dict):
        raise InvalidPayload("The body is not an event of an MLflow webhook.")
    name, alias = data.get("name"), data.get("alias")
    return name if isinstance(name, str) else "", alias if isinstance(alias, str) else None
