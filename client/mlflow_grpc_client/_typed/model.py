"""Calls of one model in its own types: `client.model("iris").predict(sepal_length=5.1, ...)`.

Rule of this module: `BaseTypedModel` says what to send and what an outcome means; its two kinds only wait differently.
"""

import contextlib
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc_client import _html, _options
from mlflow_grpc_client._calls import Call, Learn, OnError, Stream
from mlflow_grpc_client._payloads import kind_of, library
from mlflow_grpc_client._typed import columns, reader, writer
from mlflow_grpc_client._typed.contract import Contract, Rpc, kind_name
from mlflow_grpc_client._typed.payload_rows import Keywords
from mlflow_grpc_client._wire import CONTRACT_KEY
from mlflow_grpc_client.errors import FieldViolation, PredictError, failure, from_error_message

if TYPE_CHECKING:
    from mlflow_grpc_client._streams import Answers, AsyncAnswers

Params = Mapping[str, Any] | None

Steps = Generator[Call | Learn, Any, Any]
"""What to do, one after the other; the outcome of each is sent or thrown back."""

_BY_A_STALE_CONTRACT = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
)
"""How a call fails whose messages a restarted server does not know any more."""

_GONE = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
"""What is said of a model that a server does not have any more, or not with types, or could not load."""


class BaseTypedModel:
    """One model of a server. Made by `model()` of a client; what holds for all its calls is given there."""

    def __init__(
        self,
        *,
        name: str,
        timeout_s: float | None,
        default_timeout_s: float,
        request_id: str | None,
        metadata: _options.MoreMetadata | None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a model is a text, such as 'iris' or 'iris/3'; not {kind_of(name)}")
        self.name = name
        """As it was given to `model()`."""
        self._stream_timeout_s = None if timeout_s is None else _options.checked_timeout(timeout_s)
        self._timeout_s = default_timeout_s if timeout_s is None else timeout_s
        self._request_id = request_id or ""
        self._metadata = _options.call_metadata(None, request_id, None, metadata)
        self._known: Contract | None = None
        """The last one that was used, to be shown."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or '(the default)'}>"

    def _repr_html_(self) -> str:
        rpcs = self._known.rpcs if self._known is not None else {}
        title = f"{type(self).__name__} {self.name or '(the default)'}"
        shown = rpcs.get("predict") or rpcs.get("predict_batch")
        if shown is None:
            return _html.facts(title, {"types": "asked for at the first call"})
        return _html.facts(title, {"calls": ", ".join(rpcs)}) + "".join(
            f"<i>{name}</i>{_html.table((), [(each.label, kind_name(each)) for each in record.fields.values()])}"
            for name, record in (("input", shown.request), ("output", shown.response))
        )

    def _call(self, method: str, request: bytes, read: Callable[[bytes], Any]) -> Call:
        return Call(method, request, read, self._timeout_s, self._metadata)

    def _learn(self, stale: Contract | None = None) -> Learn:
        return Learn(self.name, self._call, self._timeout_s, stale)

    def _until(self) -> float:
        """The deadline of all that a call of the caller's makes, on the monotonic clock."""
        return time.monotonic() + self._timeout_s

    def _metadata_for(self, contract: Contract) -> _options.Metadata:
        """With what the messages are, so that a server that has others now does not take one for another."""
        known = ((CONTRACT_KEY, contract.fingerprint),) if contract.fingerprint else ()
        return (*self._metadata, *known)

    def _knowing(self) -> Steps:
        self._known = yield self._learn()
        return self._known

    def _contract_now(self) -> Steps:
        """The contract for a stream, which cannot be begun again: so it is asked whether it still holds."""
        contract = yield self._learn()
        return (yield self._learn(stale=contract))

    def _predicting(self, rows: Any, params: Params, fields: dict[str, Any]) -> Steps:
        given = _given(rows, fields)
        contract: Contract = yield self._learn()
        self._known = contract
        try:
            call = self._predict_call(contract, given, params)
            return (yield call) if call else []
        except (TypeError, ValueError) as error:  # Perhaps it is the types of before that do not fit.
            failed: Exception = error
        except PredictError as error:
            if error.code not in _BY_A_STALE_CONTRACT:
                raise
            failed = error
        try:
            newer: Contract = yield self._learn(stale=contract)
        except PredictError as error:
            # What became of the model explains more than its call that failed; that nobody answers does not.
            raise (error if error.code in _GONE else failed) from None
        if newer is contract:
            raise failed
        call = self._predict_call(newer, given, params)
        return (yield call) if call else []

    def _predict_call(self, contract: Contract, given: Any, params: Params) -> Call | None:
        """The call to make; None if there are no rows."""
        if not columns.is_batch(given):
            rpc = contract.rpc("predict")
            return self._typed_call(
                contract, rpc, self._record_bytes(contract, rpc, given, params), lambda data: _answer(rpc, data)
            )
        count, found = columns.columns_of(given, contract.row)
        if not count:
            return None
        rpc = contract.rpc("predict_batch")
        message = rpc.request_class()
        with self._telling_what_is_missing():
            columns.fill(message, rpc.request, count, found)
        _put_params(contract, message, params)

        def read(data: bytes) -> list[Any]:
            return columns.rows_of(rpc.response_class.FromString(data), rpc.response)

        return self._typed_call(contract, rpc, message.SerializeToString(), read)

    def _typed_call(self, contract: Contract, rpc: Rpc, request: bytes, read: Callable[[bytes], Any]) -> Call:
        return Call(rpc.path, request, read, self._timeout_s, self._metadata_for(contract), model=contract.label)

    def _many(self, contract: Contract, records: Any, params: Params, on_error: OnError) -> Stream:
        if isinstance(records, Mapping):
            what = f"{kind_of(records)} is one record, give it in a list"
            raise TypeError(f"predict_many takes an iterable of records or a DataFrame: {what}")
        rpc = contract.rpc("predict_many")
        if isinstance(records, library("pandas", "DataFrame")):
            records = (Keywords(row) for row in columns.records_of(records, rpc.request))
        return Stream(
            rpc.path,
            records,
            lambda record: self._record_bytes(contract, rpc, record, params),
            lambda data: _answer(rpc, data, self._request_id),
            self._stream_timeout_s,
            self._metadata_for(contract),
            on_error,
            contract.label,
        )

    def _parts(self, contract: Contract, record: Any, params: Params, fields: dict[str, Any]) -> Stream:
        rpc = contract.rpc("predict_stream")
        request = self._record_bytes(contract, rpc, _given(record, fields), params)
        metadata = self._metadata_for(contract)
        return Stream(
            rpc.path,
            request,
            bytes,
            lambda data: _answer(rpc, data),
            self._stream_timeout_s,
            metadata,
            model=contract.label,
        )

    def _record_bytes(self, contract: Contract, rpc: Rpc, record: Any, params: Params) -> bytes:
        message = rpc.request_class()
        only = rpc.request.only_nameless
        if only is None and not isinstance(record, Mapping):
            raise TypeError(f"{kind_of(record)} is no record: give a dict")
        is_value = not isinstance(record, Mapping) or (only is not None and only.takes_dicts)
        if only is not None and is_value and not isinstance(record, Keywords):
            record = {only.name: record}
        with self._telling_what_is_missing():
            writer.fill(message, rpc.request, record)
        _put_params(contract, message, params)
        data: bytes = message.SerializeToString()
        return data

    @contextlib.contextmanager
    def _telling_what_is_missing(self) -> Iterator[None]:
        """Makes the error that the server would give, if it could know."""
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


def _given(rows: Any, fields: dict[str, Any]) -> Any:
    if rows is None:
        return Keywords(fields)
    if fields:
        raise TypeError("give fields by keyword, or a record or rows, not both")
    if not columns.is_batch(rows) and not isinstance(rows, Mapping):
        raise TypeError(f"{kind_of(rows)} is no record: give fields by keyword, a dict, a list of dicts or a DataFrame")
    return rows


def _put_params(contract: Contract, message: Any, params: Params) -> None:
    if params is None:
        return
    if contract.params is None:
        raise TypeError(f"the model {contract.label} takes no params")
    writer.put(message, contract.params, params, "params")


def _answer(rpc: Rpc, data: bytes, request_id: str = "") -> Any:
    """The answer in a message; a PredictError if that stands in its place."""
    message = rpc.response_class.FromString(data)
    if rpc.error and message.HasField(rpc.error):
        return from_error_message(getattr(message, rpc.error), request_id)
    only = rpc.response.only_nameless
    return reader.read_record(message, rpc.response) if only is None else reader.read(message, only)


class TypedModel(BaseTypedModel):
    """One model of a server, called in its own types, which the server tells by reflection at the first call.

    Made by `Client.model`. A field is named as in the model, or as in the server's .proto file. Any number of threads
    may use it.
    """

    def __init__(self, run: Callable[[Steps, float], Any], start: Callable[[Stream], "Answers"], **given: Any) -> None:
        super().__init__(**given)
        self._run = run
        self._start = start

    def contract(self) -> Contract:
        """What the model takes and gives, which the server is asked for if it is not known yet.

        Raises:
            PredictError: There is no such model, it has no types, or no server answers.

        """
        found: Contract = self._run(self._knowing(), self._until())
        return found

    def predict(self, rows: Any = None, /, *, params: Params = None, **fields: Any) -> Any:
        """The model's answer to one record, or the list of its answers to rows.

        Args:
            rows: A dict is one record. Rows are a list of dicts, a pandas DataFrame, and where the model takes a tensor
                or columns without names, an array or a list of lists. If the only input has no name and takes dicts, a
                dict is a value of it.
            params: Params of the model. A column of that name is given in a dict.
            fields: The fields of one record, instead of `rows`.

        Returns:
            For a record a dict of all fields of the output by their names in the model, None where there is no value;
            the bare value, if the output is one without a name. For rows a list of those.

        Raises:
            TypeError: There is no such field, or a value is of another type than its field.
            ValueError: A field cannot hold its value.
            PredictError: The call failed; UNIMPLEMENTED where the model has no types, or takes no batches of rows.

        """
        return self._run(self._predicting(rows, params, fields), self._until())

    def predict_many(self, records: Iterable[Any], *, params: Params = None, on_error: OnError = "raise") -> "Answers":
        """The answers to any number of records, in their order, over one call.

        Records are drawn as the connection takes them, in a thread of gRPC's.

        Args:
            records: Dicts, or the rows of a DataFrame; where the model's only input has no name, values for it. NaN in
                a field that holds no numbers with a fraction is no value, as in the rows of `DataFrame.to_dict`.
            params: Params of the model, for each of them.
            on_error: Whether the PredictError of a record is raised in its place, or returned; so is that of a record
                that cannot be sent, which otherwise is a TypeError or ValueError and the end.

        Raises:
            TypeError: `records` is no iterable, or one record.
            PredictError: The model has no such RPC, or no server answers.

        """
        contract = self._run(self._contract_now(), self._until())
        return self._start(self._many(contract, records, params, on_error))

    def predict_stream(self, record: Any = None, /, *, params: Params = None, **fields: Any) -> "Answers":
        """The parts of the answer to one record, each when it is there; arguments and errors as of `predict`."""
        contract = self._run(self._contract_now(), self._until())
        return self._start(self._parts(contract, record, params, fields))


class AsyncTypedModel(BaseTypedModel):
    """`TypedModel` with `await`. Made by `AsyncClient.model`."""

    def __init__(
        self,
        run: Callable[[Steps, float], Awaitable[Any]],
        start: Callable[[Callable[[], Awaitable[Stream]]], "AsyncAnswers"],
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self._run = run
        self._start = start

    async def predict(self, rows: Any = None, /, *, params: Params = None, **fields: Any) -> Any:
        """As `TypedModel.predict`."""
        return await self._run(self._predicting(rows, params, fields), self._until())

    def predict_many(
        self, records: Iterable[Any] | AsyncIterable[Any], *, params: Params = None, on_error: OnError = "raise"
    ) -> "AsyncAnswers":
        """As `TypedModel.predict_many`, with an asynchronous iterator, and of an iterable of either kind.

        One that is not asynchronous is drawn in the event loop.
        """

        async def stream() -> Stream:
            contract = await self._run(self._contract_now(), self._until())
            return self._many(contract, records, params, on_error)

        return self._start(stream)

    def predict_stream(self, record: Any = None, /, *, params: Params = None, **fields: Any) -> "AsyncAnswers":
        """As `TypedModel.predict_stream`, with an asynchronous iterator."""

        async def stream() -> Stream:
            contract = await self._run(self._contract_now(), self._until())
            return self._parts(contract, record, params, fields)

        return self._start(stream)
