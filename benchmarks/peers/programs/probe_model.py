"""The model of the trials: it waits as long as the rows say, and writes down when it predicts which rows.

MLflow reads this file as the model's code (models from code), so that the model loads in all environments.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel

STEP_S = 0.02


class ProbeModel(PythonModel):
    """Multiplies the column `x` by the factor of `model_config`, after the longest wait of the rows."""

    def load_context(self, context: Any) -> None:
        """Reads the factor."""
        self._factor: float = context.model_config["factor"]

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Returns one number for a row."""
        values = model_input["x"].tolist()
        _write("start", values)
        ends = time.monotonic() + float(model_input["wait_s"].max())
        # In steps, so that a server that interrupts its model has the chance to.
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(STEP_S, left))
        _write("end", values)
        return np.array(values) * self._factor


def _write(event: str, values: list[float]) -> None:
    """Appends a line to the log of the trial, in one write, because several processes may do so."""
    line = json.dumps({"event": event, "values": values}) + "\n"
    with Path(os.environ["PROBE_LOG"]).open("a", encoding="ascii") as log:
        log.write(line)


mlflow.models.set_model(ProbeModel())
