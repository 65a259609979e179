"""The calls of a client.

Rule of this module: it builds calls and makes none.
"""

import functools
from collections import deque
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import grpc

from mlflow_grpc_client import _models, _options, _payloads, _reflection, _wire
from mlflow_grpc_client._calls import Call, OnError, Stream
from mlflow_grpc_client.errors import failure, from_error_message


class CallBuilder:
    """Builds calls with the timeout in seconds and the metadata of a client."""

    def __init__(self, timeout_s: float, metadata: _options.MoreMetadata | None) -> None:
        self._timeout_s = timeout_s
        self.metadata = dict(_options.call_metadata(None, None, None, metadata))
        """Metadata of all calls."""

    def merged(self, metadata: _options.MoreMetadata | None) -> dict[str, str | bytes]:
        """The client's metadata, overridden by that of a call."""
        return {**self.metadata, **(metadata or {})}

    def _timeout_and_metadata(
        self,
        content_type: str | None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        model: str | None = None,
        metadata: _options.MoreMetadata | None = None,
    ) -> tuple[float | None, _options.Metadata]:
        """The timeout in seconds and the metadata of a call with `CallOptions`."""
        return (
            None if timeout_s is None else _options.checked_timeout(timeout_s),
            _options.call_metadata(content_type, request_id, model, self.merged(metadata)),
        )

    def predict(self, text: str | bytes, content_type: str | None, options: _options.CallOptions) -> Call:
        """The call for the answer to a payload."""
        request = _wire.text_input(_payloads.as_text(text))
        timeout_s, metadata = self._timeout_and_metadata(content_type, **options)
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return Call(_wire.PREDICT, request, _wire.Output, lambda output: output.value, timeout_s, metadata)

    def _info_call(
        self, timeout_s: float, method: str, request: Any, response_class: Any, read: Any = lambda response: response
    ) -> Call:
        """A call of a service other than predictions, with the client's metadata."""
        timeout_s = _options.checked_timeout(timeout_s)
        return Call(method, request, response_class, read, timeout_s, tuple(self.metadata.items()))

    def health(self, service: str, timeout_s: float) -> Call:
        """The call for the health of a service or model."""
        return self._info_call(
            timeout_s,
            _wire.HEALTH_CHECK,
            _wire.HealthCheckRequest(service=service),
            _wire.HealthCheckResponse,
            lambda response: _wire.enum_name(_wire.HealthCheckResponse.ServingStatus, response.status),
        )

    def models(self, timeout_s: float) -> Call:
        """The call for the list of models."""
        request, response_class = _wire.ListModelsRequest(), _wire.ListModelsResponse
        return self._info_call(timeout_s, _wire.LIST_MODELS, request, response_class, _models.models_of)

    def proto_file(self, timeout_s: float) -> Generator[Call, Any, _reflection.ProtoFile]:
        """The calls for the .proto file."""
        _options.checked_timeout(timeout_s)
        return _reflection.proto_file(functools.partial(self._info_call, timeout_s))

    def text_stream(
        self,
        texts: Any,
        on_error: OnError,
        content_type: str | None,
        encode: Any,
        read: Any,
        options: _options.CallOptions,
    ) -> Stream:
        """A stream of payloads. `encode` converts an item of `texts` and its index, `read` an answer and its index."""
        request_id = options.get("request_id") or ""

        def message(item: Any, index: int) -> Any:
            return _wire.text_input(encode(item, index))

        def answer(output: Any, index: int) -> Any:
            has_error = output.HasField("error")
            return from_error_message(output.error, request_id) if has_error else read(output.value, index)

        timeout_s, metadata = self._timeout_and_metadata(content_type, **options)
        return Stream(_wire.PREDICT_MANY, texts, message, _wire.Output, answer, timeout_s, metadata, on_error)

    def payload_stream(self, payloads: Any, on_error: OnError, options: _options.CallOptions) -> Stream:
        """The stream of payloads and predictions as Python values."""
        bare: deque[int] = deque()  # Indexes of LLM payloads without an answer, in order.

        def encode(data: Any, index: int) -> str:
            if _payloads.is_bare(data):
                bare.append(index)
            return _payloads.to_json(data)

        def read(text: str, index: int) -> Any:
            while bare and bare[0] < index:  # The server has not answered these with a text.
                bare.popleft()
            return from_json(text, bool(bare) and bare[0] == index)

        return self.text_stream(payloads, on_error, None, encode, read, options)

    def text_chunks(self, text: str, content_type: str | None, read: Any, options: _options.CallOptions) -> Stream:
        """The stream of the chunks of an answer. `read` converts a chunk and its index."""
        stream = self.text_stream((), "raise", content_type, None, read, options)
        return replace(stream, method=_wire.PREDICT_STREAM, requests=_wire.text_input(text), encode=None)

    def chunk_stream(self, data: Any, params: dict[str, Any] | None, options: _options.CallOptions) -> Stream:
        """The stream of the chunks of an answer, as Python values."""
        text, is_bare = _payloads.to_json(data, params), _payloads.is_bare(data)
        return self.text_chunks(text, None, lambda chunk, _: from_json(chunk, is_bare), options)


def from_json(answer: str, is_bare: bool) -> Any:
    """The predictions in an answer; raises PredictError for an answer that is not JSON."""
    try:
        return _payloads.from_json(answer, bare=is_bare)
    except (ValueError, RecursionError):
        message = "The answer is not JSON; predict_text returns it as it is."
        raise failure(grpc.StatusCode.INTERNAL, message) from None
