"""A loaded model together with everything that calls to it need.

Rule of this module: values without behavior. It imports neither MLflow nor gRPC.
"""

import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc.hosting.model import HostedModel
from mlflow_grpc.payload.codec import Codec, ModelInput, RecordCodec

if TYPE_CHECKING:  # These import MLflow or schema libraries, which takes long; health is answered before that.
    from mlflow_grpc.engine.row_runner import RowRunner
    from mlflow_grpc.hosting.mlmodel.rest_records import RestRecords
    from mlflow_grpc.payload.arrow.model import TableModel
    from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder


@dataclass(frozen=True)
class FastPath:
    """Decoder and runner for payloads of plain rows, which skip MLflow's parser and checks."""

    decoder: "FastDecoder"
    runner: "RowRunner | None" = None
    """Predicts rows without MLflow's checks; None if only the decoder is used."""
    max_rows: int = 1
    """Maximum rows in a batch; 1 turns batching off."""
    max_wait_s: float = 0.0
    """Maximum time that a call waits for its batch to start, in seconds."""
    inline: bool = False
    """True if a full batch is so quick that the event loop runs it without a thread."""


@dataclass(frozen=True)
class ServableModel:
    """A loaded model with its codec, its fast path and the context that its code runs in."""

    model: HostedModel
    codec: Codec
    fast_path: FastPath | None = None
    batched: bool = False
    """True if rows of waiting calls are predicted together."""
    batching_reason: str = ""
    """Why the model is batched, or why not, as a sentence for people."""
    context: contextvars.Context = field(default_factory=contextvars.Context, repr=False)
    """Context variables as loading the model left them. Each call runs in a copy, as in MLflow's own server."""
    refused_rpcs: frozenset[RpcKind] = frozenset()
    """Typed RPCs that are not offered, because they failed on the model's input example."""

    preprocess: Callable[[object], ModelInput] | None = field(default=None, repr=False)
    """Runs the hook before the model on a parsed payload; the result has the names that hook and model ignore. None if
    there is no such hook."""

    rest_records: "RestRecords | None" = field(default=None, repr=False)
    """How rest-model-service reads and writes records; None for a model without the MLModel interface."""

    table_models: "dict[int, TableModel]" = field(default_factory=dict, init=False, repr=False, compare=False)
    """What Arrow tables need to know about the model, by the maximum size of a message; made at the first table."""

    @property
    def record_codec(self) -> RecordCodec | None:
        """The codec, if it takes records and the model's inputs are known."""
        has_inputs = self.model.info.contract.inputs is not None
        return self.codec if has_inputs and isinstance(self.codec, RecordCodec) else None
