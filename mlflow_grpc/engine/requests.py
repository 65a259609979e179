"""What is asked of a model in one call, and how it is answered: as text, as one record, as rows in columns.

Rule of this module: everything here runs in a thread of the model. A request may be answered together with others, as
rows, where it is plain; by itself it is answered the fast way first, and with all of the model's checks if that fails.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow_grpc.engine.progress import InModel, Progress, row_count
from mlflow_grpc.errors import ModelFailed, ServingError, UnwritableAnswer, shown
from mlflow_grpc.hosting.model import HostedModel, InputRefused
from mlflow_grpc.payload.codec import PLAIN_INPUT, Codec, ModelInput

if TYPE_CHECKING:  # They import MLflow, which takes seconds and is not needed to answer health checks.
    from mlflow_grpc.engine.rows import RowRunner
    from mlflow_grpc.errors import InvalidPayload
    from mlflow_grpc.payload.plain import PlainDecoder, PlainRows
    from mlflow_grpc.payload.typed import TypedCodec
    from mlflow_grpc.payload.typed_rows import RowsCodec

JSON_TYPES = (None, "application/json")
"""The values of `mlflow-content-type` that a plain payload comes with."""


@dataclass(frozen=True)
class Plain:
    """The fast way of a model: how its plain rows are decoded, and how they are run and put together."""

    decoder: "PlainDecoder"
    runner: "RowRunner | None" = None
    """Runs rows past MLflow's checks; None if only the decoder is to be used."""
    most_rows: int = 1
    """The most rows in a batch; 1 if calls are not to be put together."""
    longest_wait_s: float = 0.0
    inline: bool = False
    """Whether a whole batch is so quick that the event loop runs it itself."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """A model, its codec and its fast way."""

    model: HostedModel
    codec: Codec
    plain: Plain | None
    shows_exceptions: bool = False
    """Whether callers are told what the model raised."""


TellIgnored = Callable[[Sequence[str]], object]


class Request(ABC):
    """One call to a model. What it raises when it is answered are `ServingError`s."""

    __slots__ = ()
    hosted: Hosted
    progress: Progress
    tell_ignored: TellIgnored | None
    """Is told what the model ignores of the request, in the thread that decodes it."""

    @property
    @abstractmethod
    def size(self) -> int:
        """In bytes or characters."""

    @abstractmethod
    def _plain_rows(self) -> "PlainRows | None": ...

    def rows(self) -> "PlainRows | None":
        """What it comes to as plain rows, if there is a fast way for those."""
        self.progress.begin()
        rows = self._plain_rows()
        if rows is not None:
            self.progress.rows = rows.count
        return rows

    @abstractmethod
    def encode(self, predictions: Any) -> Any:
        """The answer for plain rows."""

    @abstractmethod
    def _decode(self) -> ModelInput: ...

    @abstractmethod
    def _explain(self, cause: BaseException | None) -> "InvalidPayload": ...

    @abstractmethod
    def _encode_decoded(self, predictions: Any, decoded: ModelInput) -> Any: ...

    def answer(self) -> Any:
        """Answers by itself, the fast way if there is one."""
        rows, plain = self.rows(), self.hosted.plain
        if rows is None or plain is None:
            return self.answer_checked()
        if plain.runner is None:
            table = plain.decoder.table([rows])
            try:
                with InModel((self.progress,)):
                    predictions = self.hosted.model.predict(table, None)
                return self.encode(predictions)
            except (ModelFailed, UnwritableAnswer) as failed:
                raise self._failed(failed, table) from failed.__cause__
        try:
            with InModel((self.progress,)):
                (predictions,) = plain.runner.predict([rows])
            return self.encode(predictions)
        except BaseException:  # noqa: BLE001 - what it was shows again, in MLflow's words, when its checks are run
            return self.answer_checked()

    def answer_checked(self) -> Any:
        """Answers by itself, with all of the model's checks."""
        decoded = None
        try:
            decoded = self._begun()
            with InModel((self.progress,)):
                predictions = self.hosted.model.predict(decoded.data, decoded.params)
            return self._encode_decoded(predictions, decoded)
        except InputRefused as refusal:
            raise self._explain(refusal.__cause__) from None
        except (ModelFailed, UnwritableAnswer) as failed:
            raise self._failed(failed, decoded and decoded.data) from failed.__cause__

    def parts(self) -> Generator[Any]:
        """The parts of the answer of a model that streams."""
        decoded = None
        try:
            decoded = self._begun()
            made = iter(self.hosted.model.predict_stream(decoded.data, decoded.params))
            try:
                while (part := self._next(made)) is not _END:
                    yield self._encode_decoded(part, decoded)
            finally:
                # Now, and in this context: an error that is kept would keep the model's iterator open with it.
                if (close := getattr(made, "close", None)) is not None:
                    close()
        except InputRefused as refusal:
            raise self._explain(refusal.__cause__) from None
        except (ModelFailed, UnwritableAnswer) as failed:
            raise self._failed(failed, decoded and decoded.data) from failed.__cause__

    def _failed(self, failed: "ModelFailed | UnwritableAnswer", data: Any) -> ServingError:
        """What a caller is told of a model that failed on parsed data, which is None if it did not come to that."""
        hosted = self.hosted
        if failed.__cause__ is None:
            return failed  # The model raised nothing: what it was given is not why.
        told = hosted.codec.with_clues(failed, data) if isinstance(failed, ModelFailed) and data is not None else failed
        if hosted.shows_exceptions:
            told.shown = shown(failed.__cause__)
        return told

    def _begun(self) -> ModelInput:
        self.progress.begin()
        decoded = self._decode()
        if decoded.ignored and self.tell_ignored is not None:
            self.tell_ignored(decoded.ignored)
        if (rows := row_count(decoded.data)) is not None:
            self.progress.rows = rows
        return decoded

    def _next(self, parts: Iterator[Any]) -> Any:
        with InModel((self.progress,)):
            return next(parts, _END)


_END = object()


@dataclass(slots=True)
class TextRequest(Request):
    """A payload of text."""

    hosted: Hosted
    text: str
    content_type: str | None
    tell_ignored: TellIgnored | None = None
    progress: Progress = field(default_factory=Progress, init=False)

    @property
    def size(self) -> int:
        """In characters."""
        return len(self.text)

    def _plain_rows(self) -> "PlainRows | None":
        plain = self.hosted.plain
        if plain is None or self.content_type not in JSON_TYPES:
            return None
        return plain.decoder.decode(self.text)

    def encode(self, predictions: Any) -> str:
        """The answer for plain rows."""
        return self.hosted.codec.encode(predictions, PLAIN_INPUT)

    def _decode(self) -> ModelInput:
        return self.hosted.codec.decode(self.text, self.content_type)

    def _explain(self, cause: BaseException | None) -> "InvalidPayload":
        return self.hosted.codec.explain(self.text, self.content_type, cause)

    def _encode_decoded(self, predictions: Any, decoded: ModelInput) -> str:
        return self.hosted.codec.encode(predictions, decoded)


@dataclass(slots=True)
class _MessageRequest(Request):
    """A message of the model's own types."""

    hosted: Hosted
    codec: Any
    message: Any
    tell_ignored: TellIgnored | None = None
    progress: Progress = field(default_factory=Progress, init=False)

    @property
    def size(self) -> int:
        """In bytes."""
        size: int = self.message.ByteSize()
        return size

    def _decode(self) -> ModelInput:
        decoded: ModelInput = self.codec.decode(self.message)
        return decoded

    def _explain(self, cause: BaseException | None) -> "InvalidPayload":
        words: InvalidPayload = self.codec.explain(self.message, cause)
        return words

    def _encode_decoded(self, predictions: Any, decoded: ModelInput) -> Any:
        return self.encode(predictions)


@dataclass(slots=True)
class RecordRequest(_MessageRequest):
    """One record."""

    codec: "TypedCodec"

    def _plain_rows(self) -> "PlainRows | None":
        plain = self.hosted.plain
        if plain is None:
            return None
        values = self.codec.plain_values(self.message)
        return plain.decoder.row(values) if values is not None else None

    def encode(self, predictions: Any) -> Any:
        """The answer."""
        return self.codec.encode(predictions)


@dataclass(slots=True)
class RowsRequest(_MessageRequest):
    """Any number of rows, in columns."""

    codec: "RowsCodec"

    def _plain_rows(self) -> "PlainRows | None":
        plain = self.hosted.plain
        return self.codec.plain_rows(self.message, plain.decoder) if plain is not None else None

    def encode(self, predictions: Any) -> Any:
        """The answer."""
        return self.codec.encode(predictions, self.codec.count(self.message))
