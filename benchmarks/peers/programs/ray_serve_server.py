"""Ray Serve: `python ray_serve_server.py MODEL PORT MAX_BATCH_SIZE BATCH_WAIT_S FOLDER`.

FastAPI takes the calls, and `serve.batch` puts them together, as https://docs.ray.io/en/latest/serve shows. The body of
a call is that of `mlflow models serve`.
"""

import signal
import sys
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import ray
from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

_MODEL, PORT, MAX_BATCH_SIZE, WAIT_S, FOLDER = sys.argv[1:]
IN_FLIGHT = 256
"""Calls that a replica takes at a time. The default, 5, would limit the batches to 5 calls."""

app = FastAPI()


class Table(BaseModel):
    """The rows of a call."""

    columns: list[str]
    data: list[list[float]]


class Payload(BaseModel):
    """The body of a call."""

    dataframe_split: Table


@serve.deployment(max_ongoing_requests=IN_FLIGHT)
@serve.ingress(app)
class ModelDeployment:
    """One replica of the model."""

    def __init__(self, path: str) -> None:
        self._model = mlflow.pyfunc.load_model(path)

    @app.post("/predict")
    async def predict(self, payload: Payload) -> dict[str, list[Any]]:
        """Returns the predictions of one call."""
        table = payload.dataframe_split
        if int(MAX_BATCH_SIZE) == 1:
            return {"predictions": self._model.predict(pd.DataFrame(table.data, columns=table.columns)).tolist()}
        return {"predictions": await self._batched(table)}

    @serve.batch(max_batch_size=int(MAX_BATCH_SIZE), batch_wait_timeout_s=float(WAIT_S))
    async def _batched(self, tables: list[Table]) -> list[list[Any]]:
        rows = [row for table in tables for row in table.data]
        predictions = self._model.predict(pd.DataFrame(rows, columns=tables[0].columns))
        ends = np.cumsum([len(table.data) for table in tables])[:-1]
        return [part.tolist() for part in np.split(predictions, ends)]


def main() -> None:
    """Serves until it is ended."""
    ray.init(include_dashboard=False, _temp_dir=FOLDER)
    serve.start(http_options={"host": "127.0.0.1", "port": int(PORT)})
    serve.run(ModelDeployment.bind(sys.argv[1]))  # type: ignore[attr-defined] # The decorator makes a Deployment.
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
