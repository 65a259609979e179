"""Interface of codecs: how the payload of a request becomes a model's input, and how its predictions become text.

Rule of this module: a codec belongs to one model, keeps no state of a call and may be used by several threads at once.
`Any` is the type of MLflow's parsed payloads and predictions; only the payload room uses it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mlflow_grpc.errors import InvalidPayload, ModelFailed, UnserializableOutput, UnsupportedContentType

if TYPE_CHECKING:
    from mlflow_grpc.payload.unknown_names import Unknown


RawPayload = str | bytes
"""Payload as it arrived: text, or bytes that may not be text (Parquet, or JSON that is not UTF-8)."""


def text_of(payload: RawPayload) -> str:
    """Returns a payload as text.

    Raises:
        InvalidPayload: It is bytes that are not UTF-8.

    """
    if isinstance(payload, str):
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        text = f"The payload is not UTF-8: its byte {error.start} does not belong to a character. Send UTF-8."
        raise InvalidPayload(text) from None


@dataclass(frozen=True, slots=True)
class ModelInput:
    """Parsed request: the arguments of `HostedModel.predict`, and the form in which its answer is written."""

    data: Any
    params: dict[str, Any] | None = None
    bare_answer: bool = False
    """True if the answer is the bare predictions, without a `predictions` key around them."""
    ignored: tuple[str, ...] = ()
    """Names in the payload that the model does not have: of columns, and of params as `params.<name>`."""


PLAIN_INPUT = ModelInput(None)
"""Stand-in for the parsed request of a fast-path answer, which reads only `bare_answer`."""


class Absent:
    """Type of the value ABSENT."""


ABSENT = Absent()
"""Placeholder in a column for a row without a value."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records in columns."""

    columns: dict[str, Any]
    """For each column name a list with a value for each record, or an array with a row for each record."""
    count: int

    def slice(self, first: int, last: int) -> "Records":
        """Returns the records from the index `first` up to `last`, which is excluded."""
        return Records({name: column[first:last] for name, column in self.columns.items()}, last - first)

    def iterate(self) -> Iterator[dict[str, Any]]:
        """Yields the records one by one, without absent values."""
        for index in range(self.count):
            yield {name: column[index] for name, column in self.columns.items() if column[index] is not ABSENT}


class Codec(Protocol):
    """Text format of one model, for requests and answers."""

    media_type: str
    """Media type of the answers."""

    def asks_for_stream(self, payload: RawPayload) -> bool:
        """Returns True if a payload requests the answer in chunks."""
        ...

    def decode(self, payload: RawPayload, content_type: str | None) -> ModelInput:
        """Parses a request.

        Args:
            payload: What the caller sent.
            content_type: The call's metadata value `mlflow-content-type`; None if it has none.

        Raises:
            UnsupportedContentType: The codec does not support the content type.
            InputRejected: The payload does not parse or does not fit the model; `explain` finds the reason.

        """
        ...

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Writes the answer.

        Raises:
            UnserializableOutput: The predictions have no form in this format.

        """
        ...

    def explain(self, payload: RawPayload, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Returns an error that explains a refusal by `decode` or by the model's own checks."""
        ...

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """Returns a model's error with possible reasons that were found in the parsed data."""
        ...


@runtime_checkable
class ChecksPayloads(Protocol):
    """Codec that can tell whether a model takes a payload, without running it."""

    def accepts(self, payload: str, content_type: str) -> bool:
        """Returns True if a payload passes all checks that are made before the model runs."""
        ...


@runtime_checkable
class RecordCodec(Codec, Protocol):
    """Formats of a model that accepts records of typed values too."""

    timestamps_have_timezone: bool
    """True if a point in time in a record ends with Z; if False it has no time zone and is UTC."""
    refuses_missing: bool
    """True if `decode_record` refuses a record without a required field; if False its caller has to."""
    unknown: "Unknown"
    """Treatment of fields that the model does not have."""

    def decode_record(self, record: Any, params: dict[str, Any] | None) -> ModelInput:
        """Decodes one record, or the array of a model whose input is one tensor.

        Args:
            record: A dictionary of the fields that are set, or an array; points in time as ISO 8601.
            params: The params that are set; None if the model has none.

        Raises:
            InvalidPayload: The record does not fit the model.
            InputRejected: The record does not fit the model; `explain_record` finds the reason.

        """
        ...

    def explain_record(self, record: Any, params: dict[str, Any] | None, cause: BaseException | None) -> InvalidPayload:
        """Returns an error that explains a refusal by `decode_record` or by the model's own checks."""
        ...

    def decode_columns(self, columns: dict[str, Any]) -> ModelInput | None:
        """Decodes columns of scalars as they are; None if `decode_records` would return another input for them.

        Args:
            columns: Arrays of the columns' numpy types, or lists of texts, by name; NaN where a value is absent.

        """
        ...

    def decode_records(self, records: Records, params: dict[str, Any] | None) -> ModelInput:
        """Decodes several records; raises the errors of `decode_record`."""
        ...

    def explain_records(
        self, records: Records, params: dict[str, Any] | None, cause: BaseException | None
    ) -> InvalidPayload:
        """Returns an error that explains a refusal by `decode_records` or by the model's own checks."""
        ...

    def columns(self, predictions: Any) -> dict[str, Any] | None:
        """Returns predictions that are a table with a column of scalars for each output, by name; None for others.

        Columns are arrays of numbers, or lists of texts with None for a missing one, with the values that `rows` has.
        """
        ...

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """Returns the predicted rows, each in the form that `value` returns.

        Args:
            predictions: The return value of the model.
            count: Number of input rows.

        Raises:
            UnserializableOutput: The predictions have no rows.

        """
        ...

    def value(self, predictions: Any) -> Any:
        """Returns the prediction for one record: a dictionary, a value or an array.

        Raises:
            UnserializableOutput: The predictions are for no record or for several.

        """
        ...


class TextCodec:
    """Plain text: the model gets the payload as a string, and the answer is `str(predictions)`."""

    media_type = "text/plain; charset=utf-8"

    def asks_for_stream(self, payload: RawPayload) -> bool:
        """Returns False, because the text is the model's."""
        return False

    def decode(self, payload: RawPayload, content_type: str | None) -> ModelInput:
        """Returns the text as the model's input."""
        mime, _, parameter = (content_type or "text/plain").partition(";")
        if mime.strip() != "text/plain" or parameter.strip().lower() not in ("", "charset=utf-8"):
            raise UnsupportedContentType(
                ["text/plain"], advice="This server hands the text to the model as it is (--payload text)."
            )
        return ModelInput(text_of(payload))

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Returns `str(predictions)`."""
        try:
            answer = str(predictions)
            answer.encode()
        except Exception as error:
            raise UnserializableOutput("The model's answer cannot be written as UTF-8 text.") from error
        return answer

    def explain(self, payload: RawPayload, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Returns the error for a model whose signature does not accept a string."""
        return InvalidPayload(
            "The model's signature does not take one plain string. Serve it without --payload text and send JSON.",
            reason="INVALID_PARAMETER_VALUE",
        )

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """Returns the error unchanged."""
        return failed
