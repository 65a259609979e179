"""Files of rows in all formats, and models that `mlflow-grpc-predict score` scores them with."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa

from mlflow_grpc.hosting.pyfunc import fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.support import scored
from tests.support.commands import predict_command
from tests.support.servers import serving


class Model:
    """A saved model, its server, and its predictions in this process."""

    def __init__(self, path: Path, address: str) -> None:
        self.address = address
        self._pyfunc = mlflow.pyfunc.load_model(str(path))

    def predict(self, frame: Any, **more: Any) -> Any:
        return self._pyfunc.predict(frame, **more)

    def score(self, *arguments: Any, stdin: bytes = b"") -> tuple[int, str]:
        """Returns the exit code and stderr; stdout is empty."""
        code, out, error = predict_command("score", *map(str, arguments), "-a", self.address)
        assert out == ""
        return code, error


@contextmanager
def served(model: Any, path: Path, signature: Any = None, name: str = "scored", **settings: Any) -> Iterator[Model]:
    scored.save(model, path, signature)
    loaded = load_pyfunc(fetching.fetch(str(path)), name=name)
    with serving(loaded, ScoringCodec(loaded.metadata, loaded.loader_module), **settings) as server:
        yield Model(path, server.address)


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Writes a frame in the format of its name, with pandas or pyarrow."""
    match path.suffix:
        case ".parquet":
            frame.to_parquet(path, row_group_size=37)
        case ".csv":
            frame.to_csv(path, index=False)
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True, double_precision=15, date_format="iso", date_unit="us")
        case ".arrow":
            table = pa.Table.from_pandas(frame)
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=37)
        case ".arrows":
            table = pa.Table.from_pandas(frame)
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table, max_chunksize=37)
    return path


def read(path: Path) -> pd.DataFrame:
    """Reads an output in the format of its name, independently of the client."""
    match path.suffix:
        case ".parquet":
            return pd.read_parquet(path)
        case ".csv":
            return pd.read_csv(path, float_precision="round_trip", dtype={"city": str})
        case ".jsonl":
            return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        frame: pd.DataFrame = reader.read_all().to_pandas()
        return frame


def assert_same(output: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(output, expected.reset_index(drop=True), check_dtype=False, check_exact=True)
