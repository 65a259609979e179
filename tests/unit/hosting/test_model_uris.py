"""URIs of models: one canonical spelling, and helpful errors for URIs without a model."""

import re
import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.pyfunc.model import PythonModel

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc import fetching, internals
from mlflow_grpc.naming import name_from_uri
from mlflow_grpc.settings import Settings
from tests.support.depth import sample

pytestmark = pytest.mark.slow


class Nothing(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry with a model r2 that has one version, and a model without versions."""
    folder = tmp_path_factory.mktemp("registry")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/registry.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", artifact_location=(folder / "files").as_uri()))
    mlflow.pyfunc.log_model("m", python_model=Nothing(), pip_requirements=["mlflow"], registered_model_name="r2")
    mlflow.MlflowClient().set_registered_model_alias("r2", "champion", "1")
    mlflow.MlflowClient().create_registered_model("empty")
    yield folder
    mlflow.set_tracking_uri(before)


SPELLINGS = ["models:/r2/1", "models:/r2/1/", "models:///r2/1", "MODELS:/r2/1", "models:/r2/01", "models:/r2@champion"]


@pytest.mark.parametrize("uri", sample(SPELLINGS, share=2))
def test_spellings_of_one_version(registry, uri):
    """Different spellings, in a flag or a file, have the same name, version and files, as in MLflow."""
    for taken in (Settings(model_uri=uri).model_uri, ModelConfig(uri=uri, endpoint=True).uri):
        fetched = fetching.fetch(str(taken))
        assert (name_from_uri(str(taken)), fetched.version) == ("r2", "1")
        expected = mlflow.artifacts.download_artifacts(artifact_uri="models:/r2/1")
        assert Path(fetched.directory).samefile(expected)


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("models:/empty/1", " empty is registered, but has no version yet."),
        ("models:/", " Write models:/name/1 or models:/name@alias. It has the models empty, r2."),
        ("models:/r2/1/sub", " has more than a name and a version: write models:/r2/1. r2 has the versions 1 and "),
        ("models:/r3/1", " It has no model r3, but empty, r2."),
        ("model:/r2/1", "MLflow knows no scheme model:. Did you mean models:/r2/1?"),
        (
            "http://127.0.0.1:9/x",
            "an MLflow server, it goes into MLFLOW_TRACKING_URI, and the model is named as in mod",
        ),
    ],
)
def test_hints(registry, uri, hint):
    """The error shows the correct form, and the models of the registry."""
    with pytest.raises(StartError, match=re.escape(hint)):
        fetching.fetch(uri)


def test_a_hint_in_an_empty_registry(registry, monkeypatch):
    """The error says what puts a model there, because log_model alone does not."""
    monkeypatch.setattr(internals, "registered_names", list)
    with pytest.raises(StartError, match=r"It has no models\. MLflow's log_model .* with registered_model_name\.$"):
        fetching.fetch("models:/flowers/1")


def test_an_unknown_model_id_keeps_mlflows_message(registry):
    """MLflow's message about an unknown id of a logged model is kept; only the registry is added."""
    with pytest.raises(StartError) as caught:
        fetching.fetch(f"models:/m-{'0' * 32}")
    assert str(caught.value).endswith("registry.db.")


def test_a_registry_that_does_not_answer_is_named(registry, monkeypatch):
    """The log names a registry that does not answer during the fetch, with the setting that ends the wait."""
    warned, lines = threading.Event(), []

    def warning(template: str, *values: object) -> None:
        lines.append(template % values)
        warned.set()

    monkeypatch.setattr(fetching, "SLOW_S", 0.01)
    monkeypatch.setattr(fetching.logger, "warning", warning)
    with fetching.warn_if_slow("models:/r2/1", "--load-timeout says for how long"):
        assert warned.wait(30)
    assert "still waiting for the registry sqlite:" in lines[0]
    assert lines[0].endswith("--load-timeout says for how long")
