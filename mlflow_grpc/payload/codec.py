"""What a codec is: how the text of a request becomes a model's input, and its predictions text again.

Rule of this module: a codec belongs to one model, keeps nothing of a call and may be used by several
threads at once. `Any` stands for what MLflow makes of a payload and goes no further than here.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from mlflow_grpc.errors import InvalidPayload, UnsupportedContentType, UnwritableAnswer
from mlflow_grpc.hosting.model import InputRefused


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A parsed request: what `HostedModel.predict` takes, and how its answer is to be written."""

    data: Any
    params: dict[str, Any] | None = None
    bare_answer: bool = False
    """Whether the predictions stand alone in the answer, without a `predictions` key around them."""


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


__all__ = ["Codec", "InputRefused", "ModelInput", "TextCodec"]
