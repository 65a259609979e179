"""Tries the typed RPCs of a model on the example that it was logged with, before anybody calls them.

Rule of this module: an RPC is taken away where its call fails and the same row is answered as JSON. If that fails too,
or takes too long, nothing is known of the RPC. The model runs once for each that works, and again for one that fails.
"""

import contextvars
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlflow_grpc import protos
from mlflow_grpc.contract import messages, service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.shapes import RpcKind
from mlflow_grpc.engine.requests import Hosted, RecordRequest, Request, RowsRequest, TextRequest
from mlflow_grpc.errors import ServingError
from mlflow_grpc.hosting.classes import one_line
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.payload.codec import RecordCodec

if TYPE_CHECKING:
    from mlflow_grpc.payload.typed_examples import Example

logger = get_logger(__name__)

LIMIT_S = 10.0
"""How long the calls of one model may take together, in seconds: about as long as loading a large model."""

ROWS = 2
"""How many rows are in a batch: an answer to one alone may be none for several."""

MAX_CHUNKS = 3
"""How many parts of an answer are looked at."""

_GO_TOGETHER = {RpcKind.ONE: (RpcKind.ONE, RpcKind.MANY)}
"""RPCs that go if one is not to be had: a stream of records answers each like a single one."""


def refused(hosted: Hosted, codec: RecordCodec, payload: str) -> frozenset[RpcKind]:
    """The typed RPCs of a model that fail on its example.

    Args:
        hosted: The model.
        codec: Takes records.
        payload: The example.

    """
    model = hosted.model
    contract = model.about.contract
    if messages.obstacle(contract):
        return frozenset()
    if not contract.takes_rows:
        logger.info("%s: typed RPCs are not tried: their messages are those of MLflow's chat API", model.name)
        return frozenset()
    trial = _Trial(hosted, codec, payload)
    # In a thread, since a model that takes too long cannot be stopped.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(trial.run,), name="trial", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return trial.end()


class _Trial:
    """The trial of one model."""

    def __init__(self, hosted: Hosted, codec: RecordCodec, payload: str) -> None:
        self._hosted = hosted
        self._codec = codec
        self._payload = payload
        self._label = hosted.model.name
        self._lock = threading.Lock()  # Of what follows.
        self._refused: set[RpcKind] = set()
        self._is_running = True

    def end(self) -> frozenset[RpcKind]:
        """What has been found so far; nothing is tried any more."""
        with self._lock:
            if self._is_running:
                logger.warning(
                    "%s: typed RPCs are offered that were not tried: its example took more than %g s",
                    self._label,
                    LIMIT_S,
                )
            self._is_running = False
            return frozenset(self._refused)

    def run(self) -> None:
        """Tries one RPC after the other."""
        try:
            self._try_all()
        except Exception as error:  # noqa: BLE001 - of an example that is no payload, or cannot be put into a message
            logger.info("%s: typed RPCs are not tried: its example cannot be sent: %s", self._label, one_line(error))
        finally:
            with self._lock:
                self._is_running = False

    def _try_all(self) -> None:
        from mlflow_grpc.payload import typed_examples

        model = self._hosted.model
        contract = model.about.contract
        text = typed_examples.first_row(self._payload, contract)
        rows = typed_examples.first_row(self._payload, contract, times=ROWS)
        calls = _Calls(self._hosted, self._codec)
        example = typed_examples.Example(self._codec.decode(text, None), contract, calls.messages)
        for kind, request in calls.requests(example).items():
            as_json = TextRequest(self._hosted, rows if kind is RpcKind.BATCH else text, None)
            with self._lock:
                if not self._is_running or kind in self._refused:
                    continue
            failure = _failure(request, kind)
            if failure is not None and _failure(as_json, kind) is None:
                self._refuse(kind, failure, has_batch=calls.messages.batch is not None)

    def _refuse(self, kind: RpcKind, failure: Exception, *, has_batch: bool) -> None:
        going = [other for other in RpcKind if other in _GO_TOGETHER.get(kind, (kind,))]
        if kind is RpcKind.ONE and not has_batch:
            going.insert(1, RpcKind.BATCH)  # There is none, so none of the model's calls is left.
        with self._lock:
            if self._is_running:
                self._refused.update(going)
                logger.warning(
                    "%s: not offered as typed RPCs: %s, since its example fails there and is answered as JSON: %s",
                    self._label,
                    ", ".join(going),
                    failure.message if isinstance(failure, ServingError) else one_line(failure),
                )


class _Calls:
    """The typed calls of a model that has no service yet."""

    def __init__(self, hosted: Hosted, codec: RecordCodec) -> None:
        self._hosted = hosted
        self._codec = codec
        model = hosted.model
        maker = messages.FileMaker()
        self.messages = maker.add("model", model.about.contract, streams=model.streams)
        service.add_service(maker.file, [self.messages])
        self._pool = protos.pool_with(maker.file)

    def requests(self, example: "Example") -> dict[RpcKind, Request]:
        """A request for each RPC that takes one, with the example in it.

        Raises:
            UnwritableAnswer: The messages cannot say it.
            TypeError: Likewise, and ValueError.

        """
        from mlflow_grpc.payload.typed_codecs import TypedCodecs

        codecs = TypedCodecs(self._codec, self._hosted.model.about.contract, self.messages, self._class)
        record = self._class(self.messages.input.name)()
        example.fill_record(record)
        found: dict[RpcKind, Request] = {RpcKind.ONE: RecordRequest(self._hosted, codecs.one, record)}
        if self.messages.batch is not None and codecs.rows is not None:
            rows = self._class(self.messages.batch.inputs.name)()
            example.fill_rows(rows, self.messages.batch, ROWS)
            found[RpcKind.BATCH] = RowsRequest(self._hosted, codecs.rows, rows)
        if self.messages.streams:
            found[RpcKind.STREAM] = RecordRequest(self._hosted, codecs.chunks, record)
        return found

    def _class(self, name: str) -> Any:
        return protos.message_class(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _failure(request: Request, kind: RpcKind) -> Exception | None:
    """What comes out of a request, if it is no answer."""
    try:
        if kind is not RpcKind.STREAM:
            request.answer()
            return None
        parts = request.parts()
        try:
            for _ in islice(parts, MAX_CHUNKS):
                pass
        finally:
            parts.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, a caller would get it
        return error
    return None
