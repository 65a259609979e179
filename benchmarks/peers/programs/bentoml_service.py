"""BentoML: the service of a model that `bentoml.mlflow.import_model` put into the store as `bench`.

The model comes from the store, and calls are put together by adaptive batching, as https://docs.bentoml.com shows for
MLflow. The body of a call is the name of the argument with rows.
"""

import os

import bentoml
import numpy as np
import pandas as pd

IS_BATCHABLE = os.environ["BENCH_BATCHABLE"] == "1"


@bentoml.service(workers=1, traffic={"timeout": 60})
class ModelService:
    """The model behind POST /predict."""

    bento_model = bentoml.models.BentoModel("bench:latest")

    def __init__(self) -> None:
        self.model = bentoml.mlflow.load_model(self.bento_model)
        self.columns = self.model.metadata.get_input_schema().input_names()

    @bentoml.api(batchable=IS_BATCHABLE)
    def predict(self, input_data: np.ndarray) -> np.ndarray:
        """Returns the predictions of all rows."""
        return np.asarray(self.model.predict(pd.DataFrame(input_data, columns=self.columns)))
