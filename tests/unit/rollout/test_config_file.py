"""A configuration file that is read again and again."""

from pathlib import Path

import pytest

from mlflow_grpc import config
from mlflow_grpc.errors import StartError
from mlflow_grpc.rollout.config_file import SETTLE_S, ConfigurationFile
from mlflow_grpc.settings import Settings

INTERVAL_S = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text("models: [{uri: a}]")
    return path


@pytest.fixture
def file(path: Path) -> ConfigurationFile:
    return ConfigurationFile(path, Settings(config=path), INTERVAL_S)


def uris(configuration: config.Configuration | None) -> list[str | None] | None:
    return None if configuration is None else [model.uri for model in configuration.models]


def test_a_content_counts_once_two_readings_agree(file, path):
    """A file that is being written is not served; the first reading reports the file itself, in case it has changed."""
    assert uris(file.look(0.0)) is None
    assert file.next_at == SETTLE_S
    assert uris(file.look(SETTLE_S)) == ["a"]
    path.write_text("models: [")
    assert file.look(20.0) is None
    path.write_text("models: [{uri: b}]")
    assert file.look(21.0) is None
    assert uris(file.look(22.0)) == ["b"]
    assert file.next_at == 22.0 + INTERVAL_S


def test_the_file_is_read_at_the_interval(file, path):
    """Between two readings nothing is read."""
    file.look(0.0)
    file.look(1.0)
    path.write_text("models: [{uri: b}]")
    assert [file.look(now) for now in (2.0, 10.0)] == [None, None]
    assert file.next_at == 11.0


def test_an_error_is_reported_once(file, path):
    """A file that is missing or wrong raises one error until its content changes."""
    file.look(0.0)
    file.look(1.0)
    path.unlink()
    file.look(20.0)
    with pytest.raises(StartError, match=r"cannot read .*models.yaml: No such file"):
        file.look(21.0)
    assert file.look(40.0) is None
    path.write_text("models: 1")
    file.look(60.0)
    with pytest.raises(StartError, match="models: has to be a list"):
        file.look(61.0)
    path.write_text("models: [{uri: a}]")
    file.look(80.0)
    assert uris(file.look(81.0)) == ["a"]
