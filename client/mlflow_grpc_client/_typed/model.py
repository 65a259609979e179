"""Calls of a model in its own types: `client.model("iris").predict(sepal_length=5.1, ...)`."""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from mlflow_grpc_client._calls import OnError, Stream
from mlflow_grpc_client._typed.base_model import BaseTypedModel, Effects, Params
from mlflow_grpc_client._typed.contract import Contract

if TYPE_CHECKING:
    from mlflow_grpc_client._streams import Answers, AsyncAnswers


class TypedModel(BaseTypedModel):
    """A model of a server, called in its own types, which the client fetches by reflection at the first call.

    Created by `Client.model`. Fields have the names of the model, or those of the server's .proto file. Any number of
    threads may use it.
    """

    def __init__(
        self, run: Callable[[Effects, float], Any], start: Callable[[Stream], "Answers"], **options: Any
    ) -> None:
        super().__init__(**options)
        self._run = run
        self._start = start

    def contract(self) -> Contract:
        """The types of the model's inputs and outputs, fetched from the server at the first use.

        Raises:
            PredictError: There is no such model, it has no types, or no server answers.

        """
        contract: Contract = self._run(self._get_contract(), self._deadline())
        return contract

    def predict(self, rows: Any = None, /, *, params: Params = None, **fields: Any) -> Any:
        """Returns the model's answer to a record, or a list of its answers to rows.

        Args:
            rows: A dict is a record. Rows are a list of dicts, a pandas DataFrame, or an array or a list of lists if
                the model takes a tensor or unnamed columns. If the sole input is unnamed and accepts dicts, a dict is
                its value.
            params: Params of the model. A column named `params` is given in a dict.
            fields: The fields of a record, instead of `rows`.

        Returns:
            For a record a dict of all output fields by their names in the model, None for absent values; a bare value
            if the sole output is unnamed. For rows a list of these.

        Raises:
            TypeError: There is no such field, or a value has a wrong type.
            ValueError: A field cannot hold its value.
            PredictError: The call failed; UNIMPLEMENTED if the model has no types, or takes no batches of rows.

        """
        return self._run(self._predict(rows, params, fields), self._deadline())

    def predict_many(self, records: Iterable[Any], *, params: Params = None, on_error: OnError = "raise") -> "Answers":
        """Returns the answers to any number of records, in order, over one call.

        A thread of gRPC draws records as fast as the connection takes them.

        Args:
            records: Dicts, or the rows of a DataFrame; values, if the sole input is unnamed. NaN in a field without
                fractions is a missing value, as in the rows of `DataFrame.to_dict`.
            params: Params of the model, for every record.
            on_error: "raise" raises a record's PredictError in its turn, "return" returns it. A record that cannot be
                sent is returned as a PredictError, too; with "raise" it is a TypeError or ValueError and the end.

        Raises:
            TypeError: `records` is not iterable, or a single record.
            PredictError: The model has no such RPC, or no server answers.

        """
        contract = self._run(self._get_fresh_contract(), self._deadline())
        return self._start(self._many(contract, records, params, on_error))

    def predict_stream(self, record: Any = None, /, *, params: Params = None, **fields: Any) -> "Answers":
        """Returns the chunks of the answer to a record as they arrive; arguments and errors as of `predict`."""
        contract = self._run(self._get_fresh_contract(), self._deadline())
        return self._start(self._chunks(contract, record, params, fields))


class AsyncTypedModel(BaseTypedModel):
    """`TypedModel` with `await`. Created by `AsyncClient.model`."""

    def __init__(
        self,
        run: Callable[[Effects, float], Awaitable[Any]],
        start: Callable[[Callable[[], Awaitable[Stream]]], "AsyncAnswers"],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._run = run
        self._start = start

    async def contract(self) -> Contract:
        """Like `TypedModel.contract`."""
        contract: Contract = await self._run(self._get_contract(), self._deadline())
        return contract

    async def predict(self, rows: Any = None, /, *, params: Params = None, **fields: Any) -> Any:
        """Like `TypedModel.predict`."""
        return await self._run(self._predict(rows, params, fields), self._deadline())

    def predict_many(
        self, records: Iterable[Any] | AsyncIterable[Any], *, params: Params = None, on_error: OnError = "raise"
    ) -> "AsyncAnswers":
        """Like `TypedModel.predict_many`, as an asynchronous iterator. `records` may be asynchronous.

        The event loop draws records from an iterable that is not asynchronous.
        """

        async def stream() -> Stream:
            contract = await self._run(self._get_fresh_contract(), self._deadline())
            return self._many(contract, records, params, on_error)

        return self._start(stream)

    def predict_stream(self, record: Any = None, /, *, params: Params = None, **fields: Any) -> "AsyncAnswers":
        """Like `TypedModel.predict_stream`, as an asynchronous iterator."""

        async def stream() -> Stream:
            contract = await self._run(self._get_fresh_contract(), self._deadline())
            return self._chunks(contract, record, params, fields)

        return self._start(stream)
