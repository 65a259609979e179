"""The synchronous client."""

from types import TracebackType
from typing import Any, Self

import grpc

from mlflow_grpc_client import wire
from mlflow_grpc_client.errors import from_rpc_error
from mlflow_grpc_client.options import DEFAULT_TIMEOUT_S, TLS, call_metadata, channel_options
from mlflow_grpc_client.payloads import from_json, is_bare, to_json


class Client:
    """A connection to one server, for any number of calls from any number of threads.

    Connects at the first call. Calls that end in UNAVAILABLE are tried again up to four times, with
    growing pauses, within their deadline.
    """

    def __init__(
        self,
        address: str = "localhost:50051",
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        tls: TLS | None = None,
        max_message_bytes: int = 100 * 1024 * 1024,
    ) -> None:
        """Args:
        address: `host:port`, or any target that gRPC knows, such as dns:///models.example:50051.
        timeout_s: The deadline of a call that is given none, in seconds.
        tls: Files for an encrypted channel; None for a plain one.
        max_message_bytes: The largest payload and the largest answer in bytes.
        """
        self._timeout_s = timeout_s
        options = channel_options(max_message_bytes, tls)
        self._channel = (
            grpc.secure_channel(address, tls.credentials(), options) if tls else grpc.insecure_channel(address, options)
        )
        self._predict = self._channel.unary_unary(wire.PREDICT, wire.input_bytes, wire.output_text)
        self._check = self._channel.unary_unary(wire.HEALTH_CHECK, wire.health_request_bytes, wire.health_status)

    def predict(
        self,
        data: Any,
        params: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Any:
        """The model's predictions: what stands under `predictions`, or the bare answer to an LLM payload.

        Args:
            data: A dict in one of MLflow's formats, a DataFrame, an array, a list, or a JSON text.
            params: Params of the model.
            timeout_s: The deadline of this call in seconds.
            request_id: The id under which the server logs the call.
            metadata: Further metadata.

        Raises:
            PredictError: The call failed.
            TypeError: `data` cannot be sent.
        """
        text = self.predict_text(
            to_json(data, params), timeout_s=timeout_s, request_id=request_id, metadata=metadata
        )
        return from_json(text, bare=is_bare(data))

    def predict_text(
        self,
        text: str,
        *,
        content_type: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> str:
        """Sends a text as it is and returns the server's text as it is.

        Args:
            text: The payload: JSON, or CSV with `content_type="text/csv"`.
            content_type: The format of the payload; None for JSON.
            timeout_s: The deadline of this call in seconds.
            request_id: The id under which the server logs the call.
            metadata: Further metadata.

        Raises:
            PredictError: The call failed.
        """
        try:
            answer: str = self._predict(
                text,
                timeout=self._timeout_s if timeout_s is None else timeout_s,
                metadata=call_metadata(content_type, request_id, metadata),
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        return answer

    def health(self, service: str = "", *, timeout_s: float = 5.0) -> str:
        """The health of the server, or of one of its services: SERVING or NOT_SERVING.

        Raises:
            PredictError: No server answers, or it has no such service.
        """
        try:
            status: str = self._check(service, timeout=timeout_s)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        return status

    def close(self) -> None:
        """Closes the connection; calls that are under way end with an error."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
