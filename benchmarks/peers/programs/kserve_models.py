"""KServe's SDK with several models: `python kserve_models.py FOLDER --http_port PORT --grpc_port PORT`.

FOLDER has an MLflow model in a folder for each name. A `kserve.ModelRepository` loads a further one when the repository
API asks for it, as the servers in KServe's own repository do.
"""

import sys
from pathlib import Path
from typing import Any

import kserve
import mlflow
import pandas as pd
from kserve.utils.utils import get_predict_response


class PyfuncModel(kserve.Model):
    """A model behind HTTP and gRPC."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._model = mlflow.pyfunc.load_model(str(path))
        self.ready = True

    def predict(self, payload: Any, headers: dict[str, str] | None = None, response_headers: object = None) -> Any:
        """Returns the predictions of one call: of tensors, or of MLflow's JSON at the route of the first protocol."""
        if isinstance(payload, dict):
            table = payload["dataframe_split"]
            rows = pd.DataFrame(table["data"], columns=table["columns"])
            return {"predictions": self._model.predict(rows).tolist()}
        rows = pd.DataFrame({tensor.name: tensor.as_numpy().ravel() for tensor in payload.inputs})
        return get_predict_response(payload, self._model.predict(rows), self.name)


class Repository(kserve.ModelRepository):
    """The models of a folder."""

    async def load(self, name: str) -> bool:
        """Loads a model that the folder has got meanwhile."""
        return self.load_model(name)

    def load_model(self, name: str) -> bool:
        """Loads a model and offers it."""
        model = PyfuncModel(name, Path(self.models_dir) / name)
        self.update(model)
        return bool(model.ready)


def main() -> None:
    """Serves until it is ended."""
    repository = Repository(sys.argv[1])
    models = [PyfuncModel(path.name, path) for path in sorted(Path(sys.argv[1]).iterdir())]
    kserve.ModelServer(registered_models=repository).start(models)


if __name__ == "__main__":
    main()
