"""KServe's SDK: `python kserve_server.py MODEL --http_port PORT --grpc_port PORT --model_name NAME`.

The model is a `kserve.Model` for the Open Inference Protocol, as https://kserve.github.io/website shows a custom
predictor. The SDK forms no batches: in KServe, an agent in front of it does.
"""

import sys

import kserve
import mlflow
import pandas as pd
from kserve.utils.utils import get_predict_response


class PyfuncModel(kserve.Model):
    """The model behind HTTP and gRPC."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._model = mlflow.pyfunc.load_model(path)
        self.ready = True

    def predict(
        self, payload: kserve.InferRequest, headers: dict[str, str] | None = None, response_headers: object = None
    ) -> kserve.InferResponse:
        """Returns the predictions of one call."""
        # Not `as_dataframe`, which does not read raw tensors.
        rows = pd.DataFrame({tensor.name: tensor.as_numpy().ravel() for tensor in payload.inputs})
        return get_predict_response(payload, self._model.predict(rows), self.name)


def main() -> None:
    """Serves until it is ended."""
    arguments, _ = kserve.model_server.parser.parse_known_args(sys.argv[2:])
    model = PyfuncModel(arguments.model_name, sys.argv[1])
    kserve.ModelServer(http_port=arguments.http_port, grpc_port=arguments.grpc_port).start([model])


if __name__ == "__main__":
    main()
