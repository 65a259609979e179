"""Models that cannot be loaded: the error says what is wrong with their files, and what to do."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine import loading
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings
from tests.support import versions

NOBODY = 65534


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model of scikit-learn."""
    rows = pd.DataFrame({"a": [1.0, 2.0]})
    model = LinearRegression().fit(rows, [1.0, 2.0])
    mlflow.sklearn.save_model(
        model,
        tmp_path / "model",
        signature=infer_signature(rows, [1.0]),
        serialization_format=versions.SKLEARN_FORMAT,
        pip_requirements=["scikit-learn"],
    )
    return tmp_path / "model"


def load(path: Path) -> None:
    loading.load(ModelConfig(uri=str(path), endpoint=True), Settings(model_uri=str(path), port=0))


def test_a_file_that_was_cut_off(saved, caplog):
    """The error says that a file may be damaged; the traceback is in the log with --log-level debug."""
    caplog.set_level(logging.DEBUG, "mlflow_grpc")
    (file,) = saved.glob("model.*")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(StartError, match="One of its files may be damaged or incomplete: fetch the model again"):
        load(saved)
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.DEBUG]


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Runs as a user who may not read the files of root; other users cannot read a file without permissions anyway."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_model_that_the_user_cannot_read(saved, caplog):
    """The error names the file and the user that the server runs as; no traceback is logged."""
    (saved / "MLmodel").chmod(0)
    with as_nobody(), pytest.raises(StartError, match=r"cannot be read: Permission denied: \S+") as raised:
        load(saved)
    assert str(saved) in str(raised.value)
    assert str(raised.value).endswith(f"the user that the server runs as, {os.geteuid() or NOBODY}")
    assert not [record for record in caplog.records if record.exc_info]
