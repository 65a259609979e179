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
                its value. A table or record batch of pyarrow is sent as it is, in batches of about 4 MB.
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


class AsyncTypedModel(BaseTypedModel[AsyncAnswers]):
    """`TypedModel` with `await`. Created by `AsyncClient.model`."""

    async def contract(self) -> Contract:
        """Like `TypedModel.contract`."""
        contract: Contract = await self._run(self._get_contract(), self._timeout_s)
        return contract

    async def predict(self, rows: Any = None, /, *, params: Params = None, **fields: Any) -> Any:
        """Like `TypedModel.predict`."""
        return await self._run(self._predict(rows, params, fields), self._timeout_s)
