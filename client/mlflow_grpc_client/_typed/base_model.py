"""The parts of typed calls that do not wait.

Rule of this module: it builds calls and reads their results; it makes no call.
"""

import contextlib
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import grpc
from _mlflow_grpc_protocol.metadata import CONTRACT_KEY, REQUEST_ID_KEY
from _mlflow_grpc_protocol.shapes import MessageShape
from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc_client import _html, _options, _tables
from mlflow_grpc_client._calls import Call, OnError, Steps, Stream
from mlflow_grpc_client._payloads import library, type_label
from mlflow_grpc_client._typed import column_writer, columns, reader, writer
from mlflow_grpc_client._typed.batch_request import BatchRequest
from mlflow_grpc_client._typed.contract import Contract, Rpc, accepts_dicts, field_type_name
from mlflow_grpc_client._typed.discovery import Contracts
from mlflow_grpc_client._typed.payloads import Keywords
from mlflow_grpc_client.errors import FieldViolation, PredictError, failure, from_error_message

Params = Mapping[str, Any] | None
AnswersT = TypeVar("AnswersT")
"""The iterator over the answers of a stream."""

ReadBatch = Callable[[Any, MessageShape], Any]
"""Reads the output of a batch: a message and its shape."""

_OUTDATED_CODES = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
)
"""Statuses of a call with messages that a restarted server no longer knows."""


_MODEL_GONE_CODES = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
"""Statuses for a model that the server no longer has, or has without types, or could not load."""


class BaseTypedModel(Generic[AnswersT]):
    """A model of a server. Created by `model()` of a client, which takes the options of all its calls."""

    def __init__(
        self,
        run: Callable[[Steps, float], Any],
        start: Callable[[Steps, float], AnswersT],
        contracts: Contracts,
        *,
        name: str,
        timeout_s: float,
        stream_timeout_s: float | None,
        metadata: _options.Metadata,
        max_message_bytes: int,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a model is a text, such as 'iris' or 'iris/3'; not {type_label(name)}")
        self._run = run
        self._start = start
        self._contracts = contracts
        self.name = name
        """The name given to `model()`."""
        self._timeout_s = timeout_s
        self._stream_timeout_s = stream_timeout_s
        self._metadata = metadata
        self._request_id = str(dict(metadata).get(REQUEST_ID_KEY, ""))
        self._max_bytes = max_message_bytes
        self._last_contract: Contract | None = None
        """The contract of the last call, for notebooks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or '(the default)'}>"

    def _repr_html_(self) -> str:
        rpcs = self._last_contract.rpcs if self._last_contract is not None else {}
        title = f"{type(self).__name__} {self.name or '(the default)'}"
        rpc = rpcs.get(RpcKind.ONE) or rpcs.get(RpcKind.BATCH)
        if rpc is None:
            return _html.facts(title, {"types": "fetched at the first call"})
        return _html.facts(title, {"calls": ", ".join(rpcs)}) + "".join(
            f"<i>{name}</i>{_html.table((), [(column.label, field_type_name(column)) for column in record.fields])}"
            for name, record in (("input", rpc.request), ("output", rpc.response))
        )

    def predict_many(
        self, records: Iterable[Any] | AsyncIterable[Any], *, params: Params = None, on_error: OnError = "raise"
    ) -> AnswersT:
        """Returns the answers to any number of records, in order, over one call.

        A thread of gRPC draws records as fast as the connection takes them. For an AsyncClient the event loop does, and
        `records` may be asynchronous.

        Args:
            records: Dicts, or the rows of a DataFrame; values, if the sole input is unnamed. NaN in a field without
                fractions is a missing value, as in the rows of `DataFrame.to_dict`.
            params: Params of the model, for every record.
            on_error: "raise" raises a record's PredictError in its turn, "return" returns it. A record that cannot be
                sent is returned as a PredictError, too; with "raise", it raises TypeError or ValueError.

        Raises:
            TypeError: `records` is not iterable, or a single record.
            PredictError: The model has no such RPC, or no server answers.

        """
        steps = self._stream(lambda contract: self._many(contract, records, params, on_error))
        return self._start(steps, self._timeout_s)

    def predict_stream(self, record: Any = None, /, *, params: Params = None, **fields: Any) -> AnswersT:
        """Returns the chunks of the answer to a record as they arrive. Takes and raises what `predict` does."""
        steps = self._stream(lambda contract: self._chunks(contract, record, params, fields))
        return self._start(steps, self._timeout_s)

    def _call(self, method: str, request: Any, response_class: Any) -> Call:
        return Call(method, request, response_class, lambda response: response, self._timeout_s, self._metadata)

    def _metadata_for(self, contract: Contract) -> _options.Metadata:
        """The metadata with the contract's fingerprint, by which a server detects messages of another contract."""
        fingerprint = ((CONTRACT_KEY, contract.fingerprint),) if contract.fingerprint else ()
        return (*self._metadata, *fingerprint)

    def _get_contract(self, cached: Contract | None = None) -> Steps:
        """The contract from the cache or from the server; from the server if the `cached` one may be outdated."""
        self._last_contract = yield from self._contracts.get(self.name, self._call, self._timeout_s, cached)
        return self._last_contract

    def _stream(self, make: Callable[[Contract], Stream]) -> Steps:
        """The stream for a contract that is checked with the server first, because a stream cannot be sent again."""
        contract = yield from self._get_contract()
        return make((yield from self._get_contract(cached=contract)))

    def _predict(self, rows: Any, params: Params, fields: dict[str, Any]) -> Steps:
        if _tables.is_table(rows) and not fields:
            return (
                yield from _tables.predict(rows, self.name, params, self._timeout_s, self._metadata, self._max_bytes)
            )
        return (yield from self._predict_data(_record_or_rows(rows, fields), params, columns.rows_of))

    def _predict_columns(self, rows: Any, params: Params) -> Steps:
        try:
            # Imported late, because it imports numpy, which the client does not need otherwise.
            from mlflow_grpc_client._typed.answer_columns import columns_in
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("predict_columns needs numpy: pip install numpy", name=error.name) from None
        data = columns.NamedColumns(rows) if isinstance(rows, Mapping) else rows
        if not columns.is_batch(data):
            raise TypeError(f"{type_label(rows)} is not rows: give a dict of columns, a table or an array")
        return self._predict_data(data, params, columns_in)

    def _predict_data(self, data: Any, params: Params, read: ReadBatch) -> Steps:
        contract = yield from self._get_contract()
        try:
            return (yield from self._predict_with(contract, data, params, read))
        except (TypeError, ValueError) as error:  # The data may fit newer types.
            original: Exception = error
        except PredictError as error:
            if error.code not in _OUTDATED_CODES:
                raise
            original = error
        try:
            newer = yield from self._get_contract(cached=contract)
        except PredictError as error:
            # A missing model explains more than the failed call; a server that does not answer explains less.
            raise (error if error.code in _MODEL_GONE_CODES else original) from None
        if newer is contract:
            raise original
        return (yield from self._predict_with(newer, data, params, read))

    def _predict_with(self, contract: Contract, data: Any, params: Params, read: ReadBatch) -> Steps:
        """The answer to a call with the messages of a contract; without rows, no call is made."""
        if not columns.is_batch(data):
            rpc = contract.rpc(RpcKind.ONE)
            request = self._record_message(contract, rpc, data, params)
            return (yield self._typed_call(contract, rpc, request, lambda response: _answer(rpc, response)))
        count, values = columns.columns_of(data, contract.row)
        if not count:
            batch = contract.rpcs.get(RpcKind.BATCH)
            return [] if batch is None else read(batch.response_class(), batch.response)
        rpc = contract.rpc(RpcKind.BATCH)
        request = BatchRequest(rpc.request_class())
        with self._missing_as_invalid_input():
            column_writer.fill(request, rpc.request, count, values)
        _put_params(contract, request.message, params)
        return (yield self._typed_call(contract, rpc, request, lambda answer: read(answer, rpc.response)))

    def _typed_call(self, contract: Contract, rpc: Rpc, request: Any, read: Callable[[Any], Any]) -> Call:
        metadata = self._metadata_for(contract)
        return Call(rpc.path, request, rpc.response_class, read, self._timeout_s, metadata, model=contract.label)

    def _many(self, contract: Contract, records: Any, params: Params, on_error: OnError) -> Stream:
        if isinstance(records, Mapping):
            problem = f"{type_label(records)} is one record, give it in a list"
            raise TypeError(f"predict_many takes an iterable of records or a DataFrame: {problem}")
        rpc = contract.rpc(RpcKind.MANY)
        if isinstance(records, library("pandas", "DataFrame")):
            records = (Keywords(row) for row in columns.records_of(records, rpc.request))
        return Stream(
            rpc.path,
            records,
            lambda record, _: self._record_message(contract, rpc, record, params),
            rpc.response_class,
            lambda response, _: _answer(rpc, response, self._request_id),
            self._stream_timeout_s,
            self._metadata_for(contract),
            on_error,
            contract.label,
        )

    def _chunks(self, contract: Contract, record: Any, params: Params, fields: dict[str, Any]) -> Stream:
        rpc = contract.rpc(RpcKind.STREAM)
        return Stream(
            rpc.path,
            self._record_message(contract, rpc, _record_or_rows(record, fields), params),
            None,
            rpc.response_class,
            lambda response, _: _answer(rpc, response),
            self._stream_timeout_s,
            self._metadata_for(contract),
            model=contract.label,
        )

    def _record_message(self, contract: Contract, rpc: Rpc, record: Any, params: Params) -> Any:
        message = rpc.request_class()
        sole = rpc.request.sole_unnamed_field
        if sole is None and not isinstance(record, Mapping):
            raise TypeError(f"{type_label(record)} is not a record: give a dict")
        is_value = not isinstance(record, Mapping) or (sole is not None and accepts_dicts(sole))
        if sole is not None and is_value and not isinstance(record, Keywords):
            record = {sole.name: record}
        with self._missing_as_invalid_input():
            writer.fill(message, rpc.request, record)
        _put_params(contract, message, params)
        return message

    @contextlib.contextmanager
    def _missing_as_invalid_input(self) -> Iterator[None]:
        """Raises the error that the server would send if it could detect missing lists and maps."""
        try:
            yield
        except writer.MissingFields as error:
            raise failure(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"The record does not fit the model's schema: {error}",
                reason="INVALID_PARAMETER_VALUE",
                error_class="SCHEMA_ENFORCEMENT_FAILED",
                request_id=self._request_id,
                violations=tuple(FieldViolation(name, "missing, and the model needs it") for name in error.names),
            ) from None


_MODEL_OPTIONS = frozenset({"timeout_s", "request_id", "metadata"})
"""Options of `Client.model`, which hold for all calls of the model."""


def _record_or_rows(rows: Any, fields: dict[str, Any]) -> Any:
    if rows is None:
        return Keywords(fields)
    if fields:
        options = ", ".join(sorted(fields.keys() & _MODEL_OPTIONS))
        hint = f"; {options}: give it to Client.model" if options else ""
        raise TypeError(f"give fields by keyword, or a record or rows, not both{hint}")
    if not columns.is_batch(rows) and not isinstance(rows, Mapping):
        problem = f"{type_label(rows)} is not a record"
        raise TypeError(f"{problem}: give fields by keyword, a dict, a list of dicts or a DataFrame")
    return rows


def _put_params(contract: Contract, message: Any, params: Params) -> None:
    if params is None:
        return
    if contract.params is None:
        raise TypeError(f"the model {contract.label} takes no params")
    writer.put(message, contract.params, params, "params")


def _answer(rpc: Rpc, message: Any, request_id: str = "") -> Any:
    """The answer in a response, or the PredictError in its place."""
    if rpc.error and message.HasField(rpc.error):
        return from_error_message(getattr(message, rpc.error), request_id)
    sole = rpc.response.sole_unnamed_field
    return reader.read_record(message, rpc.response) if sole is None else reader.read(message, sole)
