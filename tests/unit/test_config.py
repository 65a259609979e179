"""The configuration file: its keys, and the errors of an invalid file."""

import os
import re
import subprocess
import sys

import pytest

from mlflow_grpc import config
from mlflow_grpc.choices import Batching, OnError, Payload
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings
from tests.support.servers import ROOT


def read(tmp_path, text):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    return config.read(path)


def test_all_keys_are_read(tmp_path):
    """Every key of a file is read."""
    text = """
models:
  - uri: models:/iris/1
    name: iris
    version: "1"
    configuration: {threshold: 0.5}
    batching: "on"
    payload: text
    default: true
    on_error: skip
  - class_path: package.module.Class
    configuration: {depth: 3}
    decorators:
      - class_path: package.Inner
      - class_path: package.Outer
        configuration: {level: 2}
    endpoint: false
"""
    first, second = read(tmp_path, text).models
    assert (first.uri, first.name, first.version, first.default) == ("models:/iris/1", "iris", "1", True)
    assert (first.batching, first.payload, first.on_error) == (Batching.ON, Payload.TEXT, OnError.SKIP)
    assert first.configuration == {"threshold": 0.5}
    assert first.endpoint
    assert (second.class_path, second.configuration, second.endpoint) == ("package.module.Class", {"depth": 3}, False)
    assert [(decorator.class_path, decorator.configuration) for decorator in second.decorators] == [
        ("package.Inner", None), ("package.Outer", {"level": 2}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{uri: m, preprocess: clean}", r"models\[0\].preprocess: must have the form package.module.function"),
        ("{uri: m, postproces: a.b}", r"models\[0\].postproces: there is no such key; did you mean postprocess?"),
        ("{class_path: a.B, preprocess: a.b}", "preprocess and postprocess are for MLflow models .uri. without decor"),
        ("{uri: m, postprocess: a.b, decorators: [{class_path: a.B}]}", "MLflow models .uri. without decorators"),
        ("{uri: m, preprocess: a.b, payload: text}", "payload: text is for MLflow models without preprocess and"),
    ],
)
def test_invalid_hooks_are_refused(tmp_path, text, message):
    """Hooks must be functions, and are for MLflow models that take tables."""
    with pytest.raises(StartError, match=message):
        read(tmp_path, f"models: [{text}]")


@pytest.mark.parametrize(
    ("flags", "encoding", "advice"),
    [({"PYTHONUTF8": "1"}, "utf-8", "rename it"), ({"PYTHONUTF8": "0"}, "ascii", "set PYTHONUTF8=1")],
)
def test_undecodable_paths_are_refused_with_advice(flags, encoding, advice):
    """The error names the encoding, which Python takes from the locale, and the remedy."""
    path = b"/models/caf\xe9" if encoding == "utf-8" else "/models/caf\u00e9".encode()
    process = subprocess.run(
        [sys.executable, "-m", "mlflow_grpc", "serve", "-m", path],
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", **flags},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 2
    assert f"uri: has bytes that are not {encoding}, in which paths are read here: {advice}" in process.stderr


def test_the_file_of_rest_model_service(tmp_path):
    """A rest_config.yaml is accepted unchanged."""
    text = """
service_title: Iris Service
version: 0.3.0
description: "Service for iris."
models:
  - class_path: iris_model.iris_predict.IrisModel
    create_endpoint: true
    configuration:
    decorators:
      - class_path: logging_decorator.LoggingDecorator
        configuration:
          fields: [a, b]
  - class_path: iris_model.Hidden
    create_endpoint: false
logging:
  version: 1
  disable_existing_loggers: false
  root: {level: INFO}
metrics:
  enabled: true
"""
    loaded = read(tmp_path, text)
    first, second = loaded.models
    assert (first.endpoint, first.configuration, second.endpoint) == (True, None, False)
    assert first.decorators[0].configuration == {"fields": ["a", "b"]}
    assert loaded.logging == {"version": 1, "disable_existing_loggers": False, "root": {"level": "INFO"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: []", "yaml: models: has to have at least one entry$"),
        ("{}", "models: is missing"),
        ("models: {uri: a}", "yaml: models: has to be a list$"),
        ("models: [a]", r"yaml: models\[0\]: has to be a mapping$"),
        ("models: [{uri: a, configuration: [1]}]", r"yaml: models\[0\].configuration: has to be a mapping$"),
        ("models: [{uri: a, decorators: [b.C]}]", r"yaml: models\[0\].decorators\[0\]: has to be a mapping$"),
        ("models: [{uri: a, name: [b]}]", r"yaml: models\[0\].name: has to be a text$"),
        ("- a", "lists no models: it has to be a mapping"),
        ("", "lists no models: it has to be a mapping"),
        ("models: [{uri: a", "is not YAML: while parsing"),
        ("models: [{name: a}]", r"models\[0\]: give either uri .* or class_path"),
        ("models: [{uri: a, class_path: b.C}]", r"models\[0\]: give either uri"),
        ("models: [{uri: ''}]", r"models\[0\].uri: string should have at least 1 character"),
        ("models: [{class_path: Class}]", r"yaml: models\[0\].class_path: must have the form package.module.Class$"),
        ("models: [{class_path: a..B}]", r"models\[0\].class_path: must have the form package.module.Class$"),
        ("models: [{uri: a, nmae: b}]", r"yaml: models\[0\].nmae: there is no such key; did you mean name\?$"),
        (
            "models: [{uri: a, xyz: b}]",
            r"models\[0\].xyz: there is no such key; the keys are uri, class_path, .*, endpoint$",
        ),
        ("model: []\nmodels: [{uri: a}]", "yaml: model: there is no such key; did you mean models?"),
        (
            "models: [{uri: a, decorators: [{class_path: b.C, config: {}}]}]",
            r"models\[0\].decorators\[0\].config: there is no such key; did you mean configuration\?$",
        ),
        (
            "models: [{uri: a, endpoint: false, create_endpoint: true}]",
            r"models\[0\].create_endpoint: means the same as endpoint, which is set too$",
        ),
        ("models: [{uri: a, name: 'b/c'}]", r"models\[0\].name: must have 1 to 128 letters, digits, "),
        ('models: [{uri: a, name: "b\\n"}]', r"models\[0\].name: must have 1 to 128 letters, digits, "),
        ('models: [{uri: a, version: "1\\n"}]', r"models\[0\].version: must have 1 to 128 letters, digits, "),
        ('models: [{class_path: "a.B\\n"}]', r"models\[0\].class_path: must have the form package.module.Class$"),
        ("models: [{uri: a, batching: maybe}]", r"models\[0\].batching: input should be 'auto', 'on' or 'off'"),
        ("models: [{class_path: b.C, payload: text}]", r"payload: text is for MLflow models"),
        ("models: [{uri: a, name: m}, {uri: b, name: m}]", "several models are called m;"),
        (
            "models: [{uri: a, name: m, version: '1'}, {uri: b, name: m, version: '1'}]",
            "several models are called m/1;",
        ),
        ("models: [{uri: a, version: 1}]", r"yaml: models\[0\].version: has to be a text: put it in quotes$"),
        (
            "models:\n- {uri: a}\nmodels:\n- {uri: b}",
            "yaml: the key models occurs twice in one mapping, in lines 1 and 3$",
        ),
        ("models:\n- uri: a\n  'uri': b", "yaml: the key uri occurs twice in one mapping, in lines 2 and 3$"),
        ("models: [{uri: a, uri: a}]", "yaml: the key uri occurs twice in one mapping, in lines 1 and 1$"),
        ("models: [{uri: a, configuration: {k: {x: 1, x: 2}}}]", "the key x occurs twice"),
        ("models: [{uri: a, version: 2020-13-45}]", "is not YAML: month must be in"),
        ("[" * 5000, "is not YAML: maximum recursion depth"),
    ],
)
def test_invalid_files_are_refused_with_the_path(tmp_path, text, message):
    """An invalid file is an error of one line, with the file and the path in it."""
    with pytest.raises(StartError, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "models.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_merged_keys_are_not_duplicates(tmp_path):
    """A key that `<<` merges in is not a duplicate; the mapping's own key wins, as in YAML."""
    text = """
models:
  - &first {uri: a, name: one, default: true, configuration: &more {depth: 3, width: 1}}
  - {<<: *first, name: two, default: false}
  - <<: [*first, {name: none}]
    name: three
    default: false
    configuration: {<<: *more, depth: 4}
"""
    models = [(model.uri, model.name, model.default, model.configuration) for model in read(tmp_path, text).models]
    assert models == [
        ("a", "one", True, {"depth": 3, "width": 1}),
        ("a", "two", False, {"depth": 3, "width": 1}),
        ("a", "three", False, {"depth": 4, "width": 1}),
    ]


def test_unreadable_files_are_refused(tmp_path):
    """A file that is missing, a directory, or not text is refused."""
    with pytest.raises(StartError, match="No such file"):
        config.read(tmp_path / "none.yaml")
    with pytest.raises(StartError, match="Is a directory"):
        config.read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartError, match="not UTF-8"):
        config.read(tmp_path / "binary")


def test_one_model_from_the_settings():
    """MODEL_PATH is an MLflow URI, or an MLModel class with its scheme."""
    (model,) = config.load(Settings(model_uri="models:/iris/1", model_name="flower", pyfunc_config={"a": 1})).models
    assert (model.uri, model.name, model.configuration) == ("models:/iris/1", "flower", {"a": 1})
    (model,) = config.load(Settings(model_uri="mlmodel:iris_model.iris_predict.IrisModel")).models
    assert (model.uri, model.class_path) == (None, "iris_model.iris_predict.IrisModel")
    with pytest.raises(StartError, match=r"mlmodel:nothing: class_path: must have the form package.module.Class$"):
        config.load(Settings(model_uri="mlmodel:nothing"))


def test_a_file_wins_over_model_path_but_not_over_flags(tmp_path, monkeypatch):
    """A file wins over MODEL_PATH, which an image may have set, but contradicts a flag for one model."""
    path = tmp_path / "models.yaml"
    path.write_text("models: [{uri: a}, {uri: b}]")
    monkeypatch.setenv("MODEL_PATH", "/opt/ml/model")
    monkeypatch.setenv("MLFLOW_GRPC_CONFIG", str(path))
    assert [model.uri for model in config.load(Settings.load({})).models] == ["a", "b"]
    with pytest.raises(StartError, match="--model-uri does not work with --config"):
        Settings.load({"config": str(path), "model_uri": "a"})


def test_the_example_in_the_docs_is_valid(tmp_path):
    """The example in docs/models.md is a valid configuration file."""
    (text,) = re.findall(
        r"^```yaml\n(models:.*?)^```", (ROOT / "docs" / "models.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert [model.source for model in read(tmp_path, text).models] == [
        "models/iris", "mlmodel:iris_model.iris_predict.IrisModel",
    ]  # fmt: skip
