"""TorchServe: the handler of an archive whose files are those of an MLflow model.

It has the two methods of a custom handler in https://docs.pytorch.org/serve/custom_service.html. TorchServe gives it
the calls of a batch at once, and leaves the form of their bodies to it: here MLflow's JSON, or tensors of the Open
Inference Protocol as JSON.
"""

import json
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from ts.handler_utils.utils import send_intermediate_predict_response


class MlflowHandler:
    """The model of an archive."""

    def initialize(self, context: Any) -> None:
        """Loads the model."""
        self._model = mlflow.pyfunc.load_model(context.system_properties["model_dir"])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """Returns one answer for each call of a batch."""
        bodies = [item["body"] if isinstance(item["body"], dict) else json.loads(item["body"]) for item in data]
        if bodies[0].get("in_turn"):
            return self._in_turn(bodies[0], context)
        frames = [_rows(body) for body in bodies]
        predictions = np.asarray(self._model.predict(pd.concat(frames, ignore_index=True)))
        ends = np.cumsum([len(frame) for frame in frames])[:-1]
        return [
            _answer(body, values.tolist()) for body, values in zip(bodies, np.split(predictions, ends), strict=True)
        ]

    def _in_turn(self, body: dict[str, Any], context: Any) -> list[dict[str, Any]]:
        """Sends one message for each row of a call of StreamPredictions; the last one is the answer."""
        rows = _rows(body)
        answers = [_answer(body, self._model.predict(rows.iloc[[row]]).tolist()) for row in range(len(rows))]
        for answer in answers[:-1]:
            send_intermediate_predict_response([json.dumps(answer)], context.request_ids, "", 200, context)
        return answers[-1:]


def _rows(body: dict[str, Any]) -> pd.DataFrame:
    """Returns the rows of a call."""
    if "inputs" in body:
        return pd.DataFrame({tensor["name"]: np.ravel(tensor["data"]) for tensor in body["inputs"]})
    table = body["dataframe_split"]
    return pd.DataFrame(table["data"], columns=table["columns"])


def _answer(body: dict[str, Any], values: list[float]) -> dict[str, Any]:
    """Returns the predictions in the form of the request."""
    if "inputs" in body:
        output = {"name": "predict", "datatype": "FP64", "shape": [len(values)], "data": values}
        return {"model_name": "bench", "model_version": "1.0", "id": body.get("id", ""), "outputs": [output]}
    return {"predictions": values}
