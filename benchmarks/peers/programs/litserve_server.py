"""LitServe: `python litserve_server.py MODEL PORT MAX_BATCH_SIZE BATCH_WAIT_S`.

The calls of a batch are put together by `batch` and taken apart by `unbatch`, as https://lightning.ai/docs/litserve
shows. The body of a call is that of `mlflow models serve`.
"""

import sys
from typing import Any

import litserve
import mlflow
import numpy as np
import pandas as pd


class ModelApi(litserve.LitAPI):
    """The model behind POST /predict."""

    def setup(self, device: str) -> None:
        """Loads the model."""
        self.model = mlflow.pyfunc.load_model(sys.argv[1])

    def decode_request(self, request: dict[str, Any]) -> pd.DataFrame:
        """Returns the rows of a call."""
        table = request["dataframe_split"]
        return pd.DataFrame(table["data"], columns=table["columns"])

    def batch(self, inputs: list[pd.DataFrame]) -> tuple[pd.DataFrame, list[int]]:
        """Returns the rows of all calls, and how many rows come from each of them."""
        return pd.concat(inputs, ignore_index=True), [len(rows) for rows in inputs]

    def predict(self, batch: tuple[pd.DataFrame, list[int]] | pd.DataFrame) -> Any:
        """Returns the predictions, with the numbers of rows if the input has them."""
        if isinstance(batch, pd.DataFrame):
            return self.model.predict(batch)
        rows, counts = batch
        return self.model.predict(rows), counts

    def unbatch(self, output: tuple[np.ndarray, list[int]]) -> list[np.ndarray]:
        """Returns the predictions of each call."""
        predictions, counts = output
        return np.split(predictions, np.cumsum(counts)[:-1])

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """Returns the body of an answer."""
        return {"predictions": output.tolist()}


def main() -> None:
    """Serves until it is ended."""
    _model, port, max_batch_size, wait_s = sys.argv[1:]
    api = ModelApi(max_batch_size=int(max_batch_size), batch_timeout=float(wait_s))
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False)


if __name__ == "__main__":
    main()
