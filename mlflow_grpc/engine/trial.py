"""Trial of a model's typed RPCs on its input example, before they are offered.

Rule of this module: an RPC is refused if its call fails and the same row is answered as JSON. If JSON fails too, or the
trial takes too long, the RPC is offered. The model runs once for each RPC that works, and twice for one that fails.
"""

import contextvars
import threading
from itertools import islice
from typing import TYPE_CHECKING

from _mlflow_grpc_protocol.typed_terms import RpcKind
from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.contract import messages, service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.engine.answer import answer, answer_chunks
from mlflow_grpc.engine.requests import AnswerT, NoObserver, RecordRequest, Request, RowsRequest, TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import ServingError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.payload.codec import RecordCodec

if TYPE_CHECKING:
    from mlflow_grpc.payload.protobuf.examples import Example

logger = get_logger(__name__)

LIMIT_S = 10.0
"""Maximum duration of a model's trial, in seconds: about as long as loading a large model."""

ROWS = 2
"""Number of rows in a batch: an answer that is right for one row may be wrong for several."""

MAX_CHUNKS = 3
"""Number of chunks of a streamed answer that are tried."""

_REFUSED_TOGETHER = {RpcKind.ONE: (RpcKind.ONE, RpcKind.MANY)}
"""RPCs that are refused together: a stream of records answers each record like a single one."""


def refused(servable: ServableModel, codec: RecordCodec, example: str) -> frozenset[RpcKind]:
    """Returns the typed RPCs of a model that fail on its input example.

    Args:
        servable: The model.
        codec: Its codec for records.
        example: The example, as JSON.

    """
    model = servable.model
    contract = model.info.contract
    if messages.obstacle(contract):
        return frozenset()
    if not contract.takes_rows:
        logger.info("%s: typed RPCs are not tried: their messages are those of MLflow's chat API", model.name)
        return frozenset()
    trial = _Trial(servable, codec, example)
    # In a thread, since a model that takes too long cannot be stopped.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(trial.run,), name="trial", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return trial.end()


class _Trial:
    """Trial of one model."""

    def __init__(self, servable: ServableModel, codec: RecordCodec, example: str) -> None:
        self._servable = servable
        self._codec = codec
        self._example = example
        self._name = servable.model.name
        self._lock = threading.Lock()  # Guards the fields below.
        self._refused: set[RpcKind] = set()
        self._is_running = True

    def end(self) -> frozenset[RpcKind]:
        """Ends the trial and returns the RPCs that have failed so far."""
        with self._lock:
            if self._is_running:
                logger.warning(
                    "%s: typed RPCs are offered that were not tried: its example took more than %g s",
                    self._name,
                    LIMIT_S,
                )
            self._is_running = False
            return frozenset(self._refused)

    def run(self) -> None:
        """Tries the RPCs one by one."""
        try:
            self._try_all()
        except Exception as error:  # noqa: BLE001 - the example is no payload, or does not fit into a message
            logger.info("%s: typed RPCs are not tried: its example cannot be sent: %s", self._name, one_line(error))
        finally:
            with self._lock:
                self._is_running = False

    def _try_all(self) -> None:
        from mlflow_grpc.payload.protobuf import examples

        contract = self._servable.model.info.contract
        row = examples.first_row(self._example, contract)
        rows = examples.first_row(self._example, contract, times=ROWS)
        calls = _TypedCalls(self._servable, self._codec)
        example = examples.Example(self._codec.decode(row, None), contract, calls.messages)
        for rpc_kind, request in calls.requests(example).items():
            json_request = TextRequest(rows if rpc_kind is RpcKind.BATCH else row, None, NoObserver())
            with self._lock:
                if not self._is_running or rpc_kind in self._refused:
                    continue
            failure = _failure(request, self._servable, rpc_kind)
            if failure is not None and _failure(json_request, self._servable, rpc_kind) is None:
                self._refuse(rpc_kind, failure, has_batch=calls.messages.batch is not None)

    def _refuse(self, rpc_kind: RpcKind, failure: Exception, *, has_batch: bool) -> None:
        kinds = [refused for refused in RpcKind if refused in _REFUSED_TOGETHER.get(rpc_kind, (rpc_kind,))]
        if rpc_kind is RpcKind.ONE and not has_batch:
            kinds.insert(1, RpcKind.BATCH)  # A model without a batch RPC has no typed RPC left then.
        with self._lock:
            if self._is_running:
                self._refused.update(kinds)
                logger.warning(
                    "%s: not offered as typed RPCs: %s, since its example fails there and is answered as JSON: %s",
                    self._name,
                    ", ".join(kinds),
                    failure.message if isinstance(failure, ServingError) else one_line(failure),
                )


class _TypedCalls:
    """Typed calls of a model that has no service yet."""

    def __init__(self, servable: ServableModel, codec: RecordCodec) -> None:
        self._codec = codec
        self._contract = servable.model.info.contract
        model = servable.model
        maker = messages.FileMaker()
        self.messages = maker.add("model", model.info.contract, streams=model.streams)
        service.add_service(maker.file, [self.messages])
        self._pool = protos.pool_with(maker.file)

    def requests(self, example: "Example") -> dict[RpcKind, Request[Message]]:
        """Makes a request with the example for each RPC of the model.

        Raises:
            UnserializableOutput: The example does not fit into the messages.
            TypeError: Likewise.
            ValueError: Likewise.

        """
        from mlflow_grpc.payload.protobuf.codecs import TypedCodecs

        codecs = TypedCodecs(self._codec, self._contract, self.messages, self._class)
        record = self._class(self.messages.input.name)()
        example.fill_record(record)
        observer, size = NoObserver(), record.ByteSize()
        requests: dict[RpcKind, Request[Message]] = {RpcKind.ONE: RecordRequest(codecs.record, record, observer, size)}
        if self.messages.batch is not None and codecs.rows is not None:
            rows = self._class(self.messages.batch.inputs.name)()
            example.fill_rows(rows, self.messages.batch, ROWS)
            requests[RpcKind.BATCH] = RowsRequest(codecs.rows, rows, observer, rows.ByteSize())
        if self.messages.streams:
            requests[RpcKind.STREAM] = RecordRequest(codecs.chunks, record, observer, size)
        return requests

    def _class(self, name: str) -> type[Message]:
        return protos.message_class(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _failure(request: Request[AnswerT], servable: ServableModel, rpc_kind: RpcKind) -> Exception | None:
    """Answers a request; returns the error, or None if there is an answer."""
    try:
        if rpc_kind is not RpcKind.STREAM:
            answer(request, servable)
            return None
        chunks = answer_chunks(request, servable)
        try:
            for _ in islice(chunks, MAX_CHUNKS):
                pass
        finally:
            chunks.close()
    except Exception as error:  # noqa: BLE001 - a caller would get any of them
        return error
    return None
