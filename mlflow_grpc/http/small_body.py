"""Bodies of requests that are not calls of a model: a filter of a list, an event.

Rule of this module: it limits a body by size and time. Payloads of models are read by `mlflow_grpc.http.request_body`.
"""

import asyncio

from starlette.requests import ClientDisconnect, Request

from mlflow_grpc.errors import InvalidPayload, PayloadTooLarge, RequestReadTimeout

MAX_BYTES = 65_536
"""Maximum size of a body."""

READ_TIMEOUT_S = 10.0
"""Maximum time for a body to arrive, in seconds."""


async def read_small_body(request: Request) -> bytes:
    """Returns the body of a request.

    Raises:
        PayloadTooLarge: It is larger than MAX_BYTES.
        RequestReadTimeout: It did not arrive in time.
        InvalidPayload: The caller has left.

    """
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise PayloadTooLarge(f"The body is larger than {MAX_BYTES} bytes.")
    except TimeoutError:
        raise RequestReadTimeout("The body did not arrive in time.") from None
    except ClientDisconnect:
        raise InvalidPayload("The caller has left before the body was complete.") from None
    return bytes(body)
