"""Requests to a model: a payload of text or bytes, one typed record, typed rows in columns, tensors, or an Arrow table.

Rule of this module: a request holds what the caller sent, and converts it to model input and predictions to an answer.
The model is always an argument. All conversions run in a model thread, or in the event loop if they are quick.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from mlflow_grpc.engine.progress import RequestProgress
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.codec import PLAIN_INPUT, ModelInput, RawPayload
from mlflow_grpc.telemetry.traces import CallTrace

if TYPE_CHECKING:  # These import MLflow, which takes seconds; health checks are answered before that.
    from mlflow_grpc.payload.arrow.incoming import TableRows
    from mlflow_grpc.payload.arrow.reader import TableReader
    from mlflow_grpc.payload.arrow.writer import TableAnswer, TableWriter
    from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock
    from mlflow_grpc.payload.protobuf.record import TypedCodec
    from mlflow_grpc.payload.protobuf.rows import RowsCodec
    from mlflow_grpc.payload.tensors.codec import TensorCodec

_UTF8 = [f"{separator}charset={name}" for separator in (";", "; ") for name in ("utf-8", "UTF-8")]
JSON_TYPES = frozenset([None, *(f"application/json{parameter}" for parameter in ("", *_UTF8))])
"""Media types for which the payload may be plain rows."""

AnswerT = TypeVar("AnswerT")
_AnswerT_co = TypeVar("_AnswerT_co", covariant=True)
CodecT = TypeVar("CodecT", "TypedCodec", "RowsCodec", "TensorCodec")


class RequestObserver(Protocol):
    """Receives what is worth reporting about a request besides its answer; usually the call that it belongs to."""

    trace: CallTrace | None
    """Trace of the call; None if it is not traced."""
    is_shadowed: bool
    """True if a challenger runs behind the call."""

    def columns_ignored(self, names: Sequence[str]) -> None:
        """Reports names in the payload that the model ignores; called from the thread that decodes."""
        ...

    def request_ended(self, progress: RequestProgress) -> None:
        """Reports times and row count of a request that has ended, or that its caller abandoned."""
        ...


class NoObserver:
    """Observer for requests that no caller sent."""

    trace: CallTrace | None = None
    is_shadowed = False

    def columns_ignored(self, names: Sequence[str]) -> None:
        """Does nothing."""

    def request_ended(self, progress: RequestProgress) -> None:
        """Does nothing."""


class Request(ABC, Generic[_AnswerT_co]):
    """One payload with its conversions. Every method may raise a ServingError."""

    __slots__ = ("observer", "progress")
    observer: RequestObserver
    progress: RequestProgress

    @property
    @abstractmethod
    def size(self) -> int:
        """Size of the payload, in bytes or characters."""

    @property
    def cache_key(self) -> Hashable | None:
        """A key that is equal for requests with the same answer; None if the answer is not cached."""
        return None

    def trace_as_stream(self) -> None:
        """Traces the request as a part of a stream: its call has one span, whatever the number of messages."""
        trace = self.progress.trace = self.observer.trace
        if trace is not None:
            trace.has_phases = False

    @abstractmethod
    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Decodes the payload on the fast path; None if that does not apply."""

    @abstractmethod
    def encode_rows(self, model: ServableModel, predictions: object) -> _AnswerT_co:
        """Makes the answer from the predictions for the rows of `decode_rows`."""

    @abstractmethod
    def decode(self, model: ServableModel) -> ModelInput:
        """Decodes the payload as MLflow does.

        Raises:
            InputRejected: The payload does not parse or does not fit; `explain` says why.

        """

    @abstractmethod
    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> _AnswerT_co:
        """Makes the answer from the predictions for what `decode` returned."""

    @abstractmethod
    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a payload that `decode` or the model's own checks refused."""


@dataclass(slots=True)
class TextRequest(Request[str]):
    """A payload such as JSON or CSV, whose answer is text."""

    payload: RawPayload
    content_type: str | None
    """The payload's media type with its parameters; None for the codec's default."""
    observer: RequestObserver
    progress: RequestProgress = field(default_factory=RequestProgress, init=False)

    @property
    def size(self) -> int:
        """Size in characters or bytes."""
        return len(self.payload)

    @property
    def cache_key(self) -> Hashable:
        """Payload and content type."""
        return self.payload, self.content_type

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Decodes JSON of plain rows."""
        payload = self.payload
        if model.fast_path is None or self.content_type not in JSON_TYPES or not isinstance(payload, str):
            return None
        return model.fast_path.decoder.decode(payload)

    def encode_rows(self, model: ServableModel, predictions: object) -> str:
        """Writes the answer as JSON."""
        return model.codec.encode(predictions, PLAIN_INPUT)

    def decode(self, model: ServableModel) -> ModelInput:
        """Parses the payload by its content type."""
        return model.codec.decode(self.payload, self.content_type)

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> str:
        """Writes the answer as JSON or text."""
        return model.codec.encode(predictions, decoded)

    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a refused payload."""
        return model.codec.explain(self.payload, self.content_type, cause)


@dataclass(slots=True)
class _MessageRequest(Request[Message], Generic[CodecT]):
    """A payload in a message whose fields or tensors are the model's inputs."""

    codec: CodecT
    message: Message
    observer: RequestObserver
    message_bytes: int
    """Size of the message in bytes, as it arrived. protobuf would encode the message to count them."""
    progress: RequestProgress = field(default_factory=RequestProgress, init=False)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.message_bytes

    @property
    def cache_key(self) -> Hashable:
        """The codec, which differs by RPC, and the bytes of the message."""
        return self.codec, self.message.SerializeToString(deterministic=True)

    def decode(self, model: ServableModel) -> ModelInput:
        """Reads the message."""
        return self.codec.decode(self.message)

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> Message:
        """Makes the output message."""
        return self.encode_rows(model, predictions)

    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a refused message."""
        return self.codec.explain(self.message, cause)


class RecordRequest(_MessageRequest["TypedCodec"]):
    """One record."""

    __slots__ = ()

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Reads a message that has nothing but scalars, or one array."""
        if model.fast_path is None:
            return None
        values = self.codec.fast_path_values(self.message)
        return model.fast_path.decoder.row(values) if values is not None else None

    def encode_rows(self, model: ServableModel, predictions: object) -> Message:
        """Makes the output message of one record."""
        return self.codec.encode(predictions)


class RowsRequest(_MessageRequest["RowsCodec"]):
    """Any number of rows, in columns."""

    __slots__ = ()

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Reads columns of scalars, or one tensor."""
        if model.fast_path is None:
            return None
        return self.codec.fast_path_rows(self.message, model.fast_path.decoder)

    def encode_rows(self, model: ServableModel, predictions: object) -> Message:
        """Makes the output message with one entry a row."""
        return self.codec.encode(predictions, self.codec.count(self.message))


class TensorsRequest(_MessageRequest["TensorCodec"]):
    """Any number of rows, or arrays, in tensors of the Open Inference Protocol."""

    __slots__ = ()

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Reads tensors of scalars, or one tensor."""
        if model.fast_path is None:
            return None
        return self.codec.fast_path_rows(self.message, model.fast_path.decoder)

    def encode_rows(self, model: ServableModel, predictions: object) -> Message:
        """Makes the response with a tensor for each output."""
        return self.codec.encode(predictions, self.message)


@dataclass(slots=True)
class _TableRequest(Request[AnswerT], Generic[AnswerT]):
    """Rows of Arrow record batches."""

    rows: "TableRows"
    reader: "TableReader"
    writer: "TableWriter"
    observer: RequestObserver
    progress: RequestProgress = field(default_factory=RequestProgress, init=False)

    @property
    def size(self) -> int:
        """Size in memory, in bytes."""
        return self.rows.size

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Reads columns of scalars, or one tensor."""
        return None if model.fast_path is None else self.reader.fast_path_rows(self.rows, model.fast_path.decoder)

    def decode(self, model: ServableModel) -> ModelInput:
        """Reads the columns."""
        return self.reader.decode(self.rows)

    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for refused rows."""
        return self.reader.explain(self.rows, cause)


class TableRequest(_TableRequest["TableAnswer"]):
    """Rows whose answer is a table, too."""

    __slots__ = ()

    def encode_rows(self, model: ServableModel, predictions: object) -> "TableAnswer":
        """Makes the answer with a row for each prediction."""
        return self.writer.encode(predictions, self.rows.count)

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> "TableAnswer":
        """Makes the answer with a row for each prediction."""
        return self.writer.encode(predictions, self.rows.count)


class TableTextRequest(_TableRequest[str]):
    """Rows whose answer is text."""

    __slots__ = ()

    def encode_rows(self, model: ServableModel, predictions: object) -> str:
        """Writes the answer as JSON."""
        return model.codec.encode(predictions, PLAIN_INPUT)

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> str:
        """Writes the answer as JSON."""
        return model.codec.encode(predictions, decoded)
