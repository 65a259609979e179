"""The synchronous client."""

from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from mlflow_grpc_client.base import BaseClient, Call
from mlflow_grpc_client.options import HEALTH_TIMEOUT_S, CallOptions
from mlflow_grpc_client.payloads import to_json
from mlflow_grpc_client.wire import Model


class Client(BaseClient):
    """A connection to one server, for any number of calls from any number of threads.

    Connects at the first call. Predictions that end in UNAVAILABLE are tried again up to four times, with
    growing pauses, within their deadline; so are those that an overloaded server refuses, with its pauses.
    """

    def _set_up(self) -> None:
        self._channel: grpc.Channel = self._new_channel(grpc)

    def predict(self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """The model's predictions: what stands under `predictions`, or the bare answer to an LLM payload.

        Args:
            data: A dict in one of MLflow's formats, a DataFrame, an array, a dict of arrays, a list, or a
                JSON text.
            params: Params of the model.
            options: See `CallOptions`.

        Raises:
            PredictError: The call failed.
            TypeError: `data` has no JSON form that MLflow reads.
            ValueError: An option cannot be sent.

        """
        return self._predictions(data, self.predict_text(to_json(data, params), **options))

    def predict_text(self, text: str, *, content_type: str | None = None, **options: Unpack[CallOptions]) -> str:
        """Sends a text as it is and returns the server's text as it is.

        Args:
            text: The payload: JSON, or CSV with `content_type="text/csv"`.
            content_type: The format of the payload; None for JSON.
            options: See `CallOptions`.

        Raises:
            PredictError: The call failed.
            ValueError: An option cannot be sent, or the text has lone surrogates.

        """
        answer: str = self._make(self._predict_call(text, content_type, **options))
        return answer

    def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """The health of the server, or of one of its services or models: SERVING or NOT_SERVING. Not tried again.

        Raises:
            PredictError: No server answers, or it has no such service.

        """
        status: str = self._make(self._health_call(service, timeout_s))
        return status

    def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> list[Model]:
        """The models of the server, whatever became of them. Not tried again.

        Raises:
            PredictError: No server answers, or it does not tell its models (UNIMPLEMENTED).

        """
        found: list[Model] = self._make(self._models_call(timeout_s))
        return found

    def _make(self, call: Call) -> Any:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.method)
        try:
            answer = method(call.request, timeout=call.timeout_s, metadata=call.metadata)
        except grpc.RpcError as error:
            raise self._failure(call, error) from None
        except ValueError:
            if not self._closed:
                raise
            raise self._closed_failure() from None
        return self._read(call, answer)

    def close(self) -> None:
        """Closes the connection; calls that are under way, and later ones, end in a PredictError."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
