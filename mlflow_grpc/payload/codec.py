"""What a codec is: how the text of a request becomes a model's input, and its predictions text again.

Rule of this module: a codec belongs to one model, keeps nothing of a call and may be used by several
threads at once. `Any` stands for what MLflow makes of a payload and goes no further than here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from _mlflow_grpc_protocol.json_values import MAX_EXACT_INTEGER

from mlflow_grpc.errors import InvalidPayload, ModelFailed, UnsupportedContentType, UnwritableAnswer

if TYPE_CHECKING:
    from mlflow_grpc.payload.unknown_names import Unknown


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A parsed request: what `HostedModel.predict` takes, and how its answer is to be written."""

    data: Any
    params: dict[str, Any] | None = None
    bare_answer: bool = False
    """Whether the predictions stand alone in the answer, without a `predictions` key around them."""
    ignored: tuple[str, ...] = ()
    """What the payload has and the model does not: names of columns, of params as `params.<name>`."""


PLAIN_INPUT = ModelInput(None)
"""Of an answer to plain rows, for which only `bare_answer` counts."""


EXACT = MAX_EXACT_INTEGER
"""Integers up to here have a float of exactly their value."""


class Absent:
    """Of one value, ABSENT."""


ABSENT = Absent()
"""Stands in a column for a row that has no value there."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records in columns."""

    columns: dict[str, Any]
    """By their names, a value for each record, or one array with a row for each."""
    count: int

    def part(self, first: int, last: int) -> "Records":
        """The records of some rows, without the last."""
        return Records({name: column[first:last] for name, column in self.columns.items()}, last - first)

    def each(self) -> Iterator[dict[str, Any]]:
        """One record after the other, without what is absent."""
        for place in range(self.count):
            yield {name: column[place] for name, column in self.columns.items() if column[place] is not ABSENT}


class Codec(Protocol):
    """The text format of one model, in both directions."""

    def decode(self, text: str, content_type: str | None) -> ModelInput:
        """Parses a request; `content_type` is the call's `mlflow-content-type`, None if it has none.

        Raises:
            UnsupportedContentType: No such format.
            InputRefused: The text does not parse or does not fit; `explain` says why.

        """
        ...

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Writes the answer.

        Raises:
            UnwritableAnswer: The predictions have no form in this format.

        """
        ...

    def explain(self, text: str, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Finds the words for a refusal, whether of `decode` or of the model's own checks."""
        ...

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """The error of a model that failed on parsed data, with what about that data may be why."""
        ...


@runtime_checkable
class RecordCodec(Codec, Protocol):
    """The formats of a model that takes records of typed values too."""

    timestamps_have_timezone: bool
    """Whether a point in time ends with Z in a record; else it is UTC and says nothing."""
    refuses_missing: bool
    """Whether records without a field that they need are refused by its name; else one is not to be handed over."""
    unknown: "Unknown"
    """What becomes of fields that the model does not have."""

    def decode_record(self, record: Any, params: dict[str, Any] | None) -> ModelInput:
        """Takes one record, or the array that the whole input is.

        Args:
            record: A dictionary of the fields that are there, or an array; points in time as ISO 8601.
            params: The params that are there; None if the model has none.

        Raises:
            InvalidPayload: It does not fit.
            InputRefused: It does not fit; `explain_record` says why.

        """
        ...

    def explain_record(self, record: Any, params: dict[str, Any] | None, cause: BaseException | None) -> InvalidPayload:
        """Finds the words for a refusal of `decode_record` or of the model's own checks."""
        ...

    def decode_columns(self, columns: dict[str, Any]) -> ModelInput | None:
        """Takes columns of scalars as they are: arrays of their own types, texts in lists, NaN where there is no value.

        None if that would not be what `decode_records` makes of the same.
        """
        ...

    def decode_records(self, records: Records, params: dict[str, Any] | None) -> ModelInput:
        """Takes any number of records; raises what `decode_record` raises."""
        ...

    def explain_records(
        self, records: Records, params: dict[str, Any] | None, cause: BaseException | None
    ) -> InvalidPayload:
        """Finds the words for a refusal of `decode_records` or of the model's own checks."""
        ...

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """What was predicted for so many rows, for each as `value` gives it for one.

        Raises:
            UnwritableAnswer: It has no rows.

        """
        ...

    def value(self, predictions: Any) -> Any:
        """What was predicted for one record: a dictionary, a value or an array.

        Raises:
            UnwritableAnswer: The predictions are for none or for several.

        """
        ...


class TextCodec:
    """Plain text: the string goes to the model as it is, and `str(answer)` comes back."""

    def decode(self, text: str, content_type: str | None) -> ModelInput:
        """Takes the text as it is."""
        if content_type not in (None, "text/plain"):
            raise UnsupportedContentType(
                "This server hands plain text to the model (--payload text): leave the metadata key "
                "mlflow-content-type out, or set it to text/plain."
            )
        return ModelInput(text)

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Writes `str(predictions)`."""
        try:
            answer = str(predictions)
            answer.encode()
        except Exception as error:
            raise UnwritableAnswer("The model's answer cannot be written as UTF-8 text.") from error
        return answer

    def explain(self, text: str, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Says the one thing that can be wrong with plain text."""
        return InvalidPayload(
            "The model's signature does not take one plain string. Serve it without --payload text and send JSON.",
            reason="INVALID_PARAMETER_VALUE",
        )

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """The error as it is."""
        return failed
