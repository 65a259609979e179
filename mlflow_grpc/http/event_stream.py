"""Answers as server-sent events, one event per chunk.

Source: `mlflow.genai.agent_server.AgentServer._generate`. Each event is a line `data: ` with JSON, and the last one is
`data: [DONE]`. The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Self

from mlflow_grpc.errors import ServingError
from mlflow_grpc.http.errors import error_of

DONE = b"data: [DONE]\n\n"

_LINE_END = re.compile(r"\r\n|\r|\n")


class EventStream:
    """The chunks of one answer, starting with a first chunk that is already available."""

    def __init__(self, first: str | None, others: AsyncGenerator[str]) -> None:
        self._first = first
        self._others = others

    @classmethod
    async def start(cls, chunks: AsyncGenerator[str]) -> Self:
        """Waits for the first chunk; raises an error before it, so that the response has the status of the error."""
        return cls(await anext(chunks, None), chunks)

    async def events(self) -> AsyncGenerator[bytes]:
        """Yields an event for each chunk; raises the errors of the chunks."""
        async with aclosing(self._others):
            if self._first is None:
                return
            yield _event(self._first)
            async for chunk in self._others:
                yield _event(chunk)

    @staticmethod
    def error(error: ServingError) -> bytes:
        """Returns the event for an error, with the error code and message of an HTTP error."""
        _, body = error_of(error)
        return _event(json.dumps({"error": body["message"], "error_code": body["error_code"]}))


def _event(text: str) -> bytes:
    return "".join(f"data: {line}\n" for line in _LINE_END.split(text)).encode() + b"\n"
