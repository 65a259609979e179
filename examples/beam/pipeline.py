"""Scores a CSV file by a served model in an Apache Beam pipeline.

    python pipeline.py --input ../flowers.csv --output predictions.jsonl

MODEL_ADDRESS is the address of the model's server, localhost:50051 by default. Further arguments are options of Beam.
"""

import argparse
import csv
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io import ReadFromText, WriteToText
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from mlflow_grpc_client import Client, TypedModel

COLUMNS = ["id", "sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
"""Columns of the file. Beam reads its lines in any order, and in several processes, so its header is of no use."""

Row = dict[str, float]
"""A flower's measurements by the names of the model's columns."""


class ServedModel(ModelHandler[Row, str, TypedModel]):
    """A model on a server. Beam makes one connection for each worker process, and puts rows into batches."""

    def __init__(self, address: str, model: str) -> None:
        """Keeps what a worker needs to connect; Beam pickles it.

        Args:
            address: Address of the server, or several with commas between them.
            model: Name of the model.

        """
        super().__init__(min_batch_size=1, max_batch_size=1000)
        self._address = address
        self._model = model

    def load_model(self) -> TypedModel:
        """Returns a model of a client that lives as long as the worker."""
        return Client(self._address).model(self._model)

    def run_inference(
        self, batch: Sequence[Row], model: TypedModel, inference_args: dict[str, Any] | None = None
    ) -> Iterable[str]:
        """Returns the predictions for a batch of rows. Beam tries a batch again if it fails."""
        predictions: list[str] = model.predict(list(batch), params=inference_args)
        return predictions


def parse(line: str) -> tuple[str, Row]:
    """Returns the id of a flower, and its measurements."""
    (flower,) = csv.DictReader([line], COLUMNS)
    return flower.pop("id"), {name: float(value) for name, value in flower.items()}


def main() -> None:
    """Builds the pipeline and runs it."""
    parser = argparse.ArgumentParser(description="Score a CSV file by a served model.")
    parser.add_argument("--input", required=True, help="the CSV file, with a header")
    parser.add_argument("--output", required=True, help="the file of predictions, in JSON lines")
    arguments, options = parser.parse_known_args()
    iris = ServedModel(os.environ.get("MODEL_ADDRESS", "localhost:50051"), "iris")
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        (
            pipeline
            | ReadFromText(arguments.input, skip_header_lines=1)
            | beam.Map(parse)
            | RunInference(KeyedModelHandler(iris))
            | beam.Map(lambda prediction: json.dumps({"id": prediction[0], "species": prediction[1]}))
            | WriteToText(arguments.output, shard_name_template="")
        )


if __name__ == "__main__":
    main()
