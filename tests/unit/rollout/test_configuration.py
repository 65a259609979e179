"""Which models are tracked, and which settings are refused."""

import re
from pathlib import Path
from typing import Any

import pytest

from mlflow_grpc import config
from mlflow_grpc.errors import StartError
from mlflow_grpc.naming import can_move, registered_name_and_alias
from mlflow_grpc.rollout.configuration import may_replace_workers, tracked
from mlflow_grpc.settings import Settings


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("MODEL_PATH", raising=False)


def intervals(flags: dict[str, Any]) -> list[float | None]:
    """Returns the interval of each model of a server with these flags."""
    settings = Settings.load(flags)
    return [model.track for model in tracked(config.load(settings), settings).models]


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), (" 1.5 m ", 90), ("1h", 3600)])
def test_intervals_have_units(text, seconds):
    """An interval is a number of seconds, or has a unit."""
    assert intervals({"model_uri": "models:/churn@champion", "track_s": text}) == [seconds]


def test_models_are_not_tracked_by_default():
    """Without --track, an alias is resolved once."""
    assert intervals({"model_uri": "models:/churn@champion"}) == [None]


@pytest.mark.parametrize(
    ("uri", "moves"),
    [
        ("models:/churn@champion", True),
        ("models:/churn/latest", True),
        ("models:/churn/Production", True),
        ("models:/churn/1", False),
        ("models:/m-0123456789abcdef0123456789abcdef", False),
        ("models://profile@databricks/churn/1", False),
        ("runs:/0123/model", False),
        ("s3://bucket/churn@1", False),
        ("/srv/churn@champion", False),
    ],
)
def test_uris_that_can_move(uri, moves):
    """Only an alias, latest and a stage may mean another version later."""
    assert can_move(uri) is moves


def file_of(folder: Path, text: str) -> Path:
    path = folder / "models.yaml"
    path.write_text(text)
    return path


def test_a_flag_is_for_the_models_that_can_be_tracked(tmp_path):
    """A model's own interval counts first; off is never."""
    models = (
        "models: [{uri: 'models:/a@x'}, {uri: 'models:/b@x', track: 5m}, {uri: 'models:/c@x', track: off}, {uri: d}]"
    )
    assert intervals({"config": file_of(tmp_path, models), "track_s": "30"}) == [30, 300, 0, None]
    assert intervals({"config": file_of(tmp_path, models)}) == [None, 300, 0, None]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"model_uri": "models:/a/1", "track_s": "30"},
            "--track has no effect: models:/a/1 always means the same version",
        ),
        (
            {"model_uri": "mlmodel:a.B", "track_s": "30"},
            "--track has no effect: mlmodel:a.B always means the same version",
        ),
        ({"model_uri": "models:/a@x", "track_s": "0"}, "--track '0': input should be greater than or equal to 0.1"),
        ({"model_uri": "models:/a@x", "track_s": "soon"}, "--track 'soon': input should be a valid number"),
        ({"model_uri": "models:/a@x", "track_s": "..s"}, "--track '..s': input should be a valid number"),
        ({"model_uri": "models:/a@x", "keep_previous_s": "-1"}, "--keep-previous '-1': input should be greater"),
        ({"model_uri": "models:/a@x", "watch_config_s": "30"}, "--watch-config has no effect without a file"),
        ({"model_uri": "models:/a@x", "watch_config_s": "0"}, "--watch-config '0': input should be greater than or"),
        (
            {"model_uri": "models:/a@x", "track_s": "30", "env_manager": "uv"},
            "--env-manager builds the environment of one version",
        ),
    ],
)
def test_settings_without_effect_are_refused(flags, message):
    """The error names the setting, and what to write instead."""
    with pytest.raises(StartError) as raised:
        intervals(flags)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("[{uri: 'models:/a/1', track: 30s}]", "models[0]: track has no effect: models:/a/1 always means the same"),
        ("[{class_path: a.B, track: 30}]", "models[0]: track has no effect: mlmodel:a.B always means the same version"),
        ("[{uri: 'models:/a@x', track: 0.01}]", "track has to be off, or a number of seconds from 0.1 to 86400"),
        (
            "[{uri: 'models:/a@x', track: 30}, {uri: 'models:/a/1'}]",
            "several models are called a, and models:/a@x is tracked",
        ),
    ],
)
def test_files_are_refused(tmp_path, models, message):
    """The error has the path in the file."""
    with pytest.raises(StartError) as raised:
        intervals({"config": file_of(tmp_path, f"models: {models}")})
    assert message in str(raised.value)


def test_a_flag_for_a_file_without_aliases(tmp_path):
    """--track is refused if it would change nothing."""
    with pytest.raises(StartError, match=r"--track has no effect: no model of \S+ has an alias, latest or a stage"):
        intervals({"config": file_of(tmp_path, "models: [{uri: a}, {uri: 'models:/b/1'}]"), "track_s": "30"})


@pytest.mark.parametrize(
    ("flags", "content", "reason"),
    [
        ({"model_uri": "models:/churn/1"}, "x", "--webhook-secret has no effect: no model is tracked; add --track"),
        ({"track_s": 1}, "x", "--webhook-secret has no effect without an HTTP port"),
        ({"track_s": 1, "http_port": 0}, " \n", "the file is empty; write the secret of the webhook into it"),
        ({"track_s": 1, "http_port": 0}, None, "No such file or directory"),
    ],
)
def test_a_webhook_without_effect_is_refused(tmp_path, flags, content, reason):
    """A secret needs a tracked model, an HTTP port, and a file that has it."""
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_text(content)
    with pytest.raises(StartError, match=re.escape(reason)):
        intervals({"model_uri": "models:/churn@champion", "webhook_secret": secret, **flags})


@pytest.mark.parametrize(
    ("uri", "registered"),
    [
        ("models:/churn@champion", ("churn", "champion")),
        ("models:/churn/latest", ("churn", None)),
        ("models:/churn/Production", ("churn", None)),
        ("s3://bucket/churn@1", ("", None)),
    ],
)
def test_registered_models_of_uris(uri, registered):
    """A hint names a registered model and an alias, which a URI has too."""
    assert registered_name_and_alias(uri) == registered


def test_a_watched_file_shares_no_environment(tmp_path):
    """The environment of one model would be that of models that the file gets later."""
    flags = {"config": file_of(tmp_path, "models: [{uri: a}]"), "watch_config_s": "30", "env_manager": "uv"}
    with pytest.raises(StartError, match="--env-manager builds the environment of one model, and a watched file may"):
        intervals(flags)


@pytest.mark.parametrize(
    ("flags", "models", "expected"),
    [
        ({}, "[{uri: 'models:/a@x'}]", False),
        ({}, "[{uri: 'models:/a@x', track: off}]", False),
        ({}, "[{uri: 'models:/a@x', track: 30}, {uri: b}]", True),
        ({"watch_config_s": "5m"}, "[{uri: b}]", True),
    ],
)
def test_workers_are_replaced_only_if_something_may_change(tmp_path, flags, models, expected):
    """A server without tracked models and a watched file needs no supervisor for one worker."""
    settings = Settings.load({"config": file_of(tmp_path, f"models: {models}"), **flags})
    assert may_replace_workers(tracked(config.load(settings), settings), settings) is expected
