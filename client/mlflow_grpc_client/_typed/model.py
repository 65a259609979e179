"""Calls of a model in its own types: `client.model("iris").predict(sepal_length=5.1, ...)`."""

from typing import Any

from mlflow_grpc_client._streams import Answers, AsyncAnswers
from mlflow_grpc_client._typed.base_model import BaseTypedModel, Params
from mlflow_grpc_client._typed.contract import Contract


class TypedModel(BaseTypedModel[Answers]):
    """A model of a server, called in its own types, which the client fetches by reflection at the first call.

    Created by `Client.model`. Fields have the names of the model, or those of the server's .proto file. Any number of
    threads may use it.
    """

    def contract(self) -> Contract:
        """The types of the model's inputs and outputs, fetched from the server at the first use.

        Raises:
            PredictError: There is no such model, it has no types, or no server answers.

        """
        contract: Contract = self._run(self._get_contract(), self._timeout_s)
        return contract

    def predict(self, rows: Any = None, /, *, params: Params = None, **fields: Any) -> Any:
        """Returns the model's answer to a record, or a list of its answers to rows.

        Args:
            rows: A dict is a record. Rows are a list of dicts, a pandas DataFrame, or an array or a list of lists if
                the model takes a tensor or unnamed columns. If the sole input is unnamed and accepts dicts, a dict is
                its value. A table or record batch of pyarrow is sent as it is. One that exceeds
                `max_message_bytes` is predicted in several batches.
            params: Params of the model. A column named `params` is given in a dict.
            fields: The fields of a record, instead of `rows`.

        Returns:
            For a record a dict of all output fields by their names in the model, None for absent values; a bare value
            if the sole output is unnamed. For rows a list of these. For a table of pyarrow a table.

        Raises:
            TypeError: There is no such field, or a value has a wrong type.
            ValueError: A field cannot hold its value.
            PredictError: The call failed; UNIMPLEMENTED if the model has no types, or takes no batches of rows.

        """
        return self._run(self._predict(rows, params, fields), self._timeout_s)

    def predict_columns(self, rows: Any, /, *, params: Params = None) -> dict[str, Any]:
        """Returns the model's answers to rows in columns, without a Python object for each number. Needs numpy.

        Args:
            rows: A dict of columns by the names of fields, each a numpy array, a pandas Series, a column of pyarrow or
                a list; a pyarrow.Table; or rows as in `predict`.
            params: Params of the model.

        Returns:
            A column for each output, by its name in the model, or in the server's .proto file if it has none there.
            Numbers and booleans are numpy arrays, with a mask if a row has no value. Tensors are arrays too. Other
            columns are lists, with None for a row without a value.

        Raises:
            ModuleNotFoundError: numpy is missing.
            TypeError: There is no such field, or a column has a wrong type.
            ValueError: A field cannot hold its column, or columns have different lengths.
            PredictError: The call failed; UNIMPLEMENTED if the model has no types, or takes no batches of rows.

        """
        answer: dict[str, Any] = self._run(self._predict_columns(rows, params), self._timeout_s)
        return answer


class AsyncTypedModel(BaseTypedModel[AsyncAnswers]):
    """`TypedModel` with `await`. Created by `AsyncClient.model`."""

    async def contract(self) -> Contract:
        """Like `TypedModel.contract`."""
        contract: Contract = await self._run(self._get_contract(), self._timeout_s)
        return contract

    async def predict(self, rows: Any = None, /, *, params: Params = None, **fields: Any) -> Any:
        """Like `TypedModel.predict`."""
        return await self._run(self._predict(rows, params, fields), self._timeout_s)

    async def predict_columns(self, rows: Any, /, *, params: Params = None) -> dict[str, Any]:
        """Like `TypedModel.predict_columns`."""
        answer: dict[str, Any] = await self._run(self._predict_columns(rows, params), self._timeout_s)
        return answer
