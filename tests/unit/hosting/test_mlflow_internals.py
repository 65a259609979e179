"""MLflow's undocumented names that this server uses: these tests fail with an explanation when a new MLflow moves one."""

import functools
import inspect

import mlflow.models.model
import mlflow.models.utils
import mlflow.pyfunc
import mlflow.pyfunc.model
import pytest
import yaml
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.loaders import chat_agent, chat_model, responses_agent
from mlflow.pyfunc.model import PythonModel
from mlflow.pyfunc.utils import data_validation
from mlflow.types import type_hints
from mlflow.utils import proto_json_utils, requirements_utils, virtualenv

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.type_hints import item_hint
from tests.support.versions import mlflow_is_before

PARAMETERS = {
    scoring_server._parse_json_data: ["data", "metadata", "input_schema"],
    scoring_server.parse_csv_input: ["csv_input", "schema"],
    scoring_server.predictions_to_json: ["raw_predictions", "output", "metadata"],
    scoring_server.unwrapped_predictions_to_json: ["raw_predictions", "output"],
    scoring_server.invocations: ["data", "content_type", "model", "input_schema"],
    mlflow.pyfunc._validate_prediction_input: ["data", "params", "input_schema", "params_schema", "flavor"],
    mlflow.pyfunc.PyFuncModel.predict: ["self", "data", "params"],
    proto_json_utils.cast_df_types_according_to_schema: ["pdf", "schema"],
    mlflow.models.utils._enforce_type: ["data", "data_type", "required"],
    type_hints._validate_data_against_type_hint: ["data", "type_hint"],
    type_hints.model_validate: ["model", "values"],
    requirements_utils._parse_requirements: ["requirements", "is_constraint", "base_dir"],
    virtualenv._get_python_env: ["local_model_path"],
}
if not mlflow_is_before("3.10"):
    PARAMETERS[scoring_server.parse_parquet_input] = ["parquet_input"]


@pytest.mark.parametrize("function", PARAMETERS, ids=lambda function: function.__qualname__)
def test_parameters(function):
    """MLflow's functions still have the parameters that they are called with."""
    assert list(inspect.signature(function).parameters) == PARAMETERS[function], (
        f"{function.__module__}.{function.__qualname__} has changed: look at mlflow_grpc/hosting/pyfunc/internals.py "
        "and at how mlflow.pyfunc.scoring_server.invocations uses it now"
    )


def test_the_parser_returns_data_and_params():
    """A parsed payload still has data, params and the mark of LLM input."""
    assert scoring_server.ParsedJsonInput._fields == ("data", "params", "is_unified_llm_input")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (mlflow.pyfunc, "_validate_prediction_input"),
        (mlflow.models.utils, "_enforce_params_schema"),
        (mlflow.pyfunc, "_convert_dataframe_to_example_format"),
        (mlflow.pyfunc.model._PythonModelPyfuncWrapper, "_convert_input"),
        (chat_model._ChatModelPyfuncWrapper, "_convert_input"),
        (chat_agent._ChatAgentPyfuncWrapper, "_convert_input"),
        (responses_agent._ResponsesAgentPyfuncWrapper, "_convert_input"),
        (data_validation, "_validate_model_input"),
    ],
    ids=str,
)
def test_input_checks_have_their_names(owner, name):
    """The functions that identify a refused input still have their names."""
    assert name in internals.INPUT_CHECKS
    function = getattr(owner, name, None)
    assert function is not None, f"{owner.__name__}.{name} has gone: find out where MLflow checks input now"
    assert inspect.unwrap(function).__code__.co_name == name
    assert function.__module__.startswith("mlflow.")


def test_serving_environment():
    """MLflow still has the variable that its server sets, and setting it works."""
    internals.enter_serving_environment()
    assert _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get() is True
    assert "_MLFLOW_IS_IN_SERVING_ENVIRONMENT" in inspect.getsource(scoring_server.init)


def test_schema_details_are_hidden_in_every_version(monkeypatch):
    """MLFLOW_DISABLE_SCHEMA_DETAILS works, also with an MLflow that does not know it."""
    assert not internals.hides_schema_details()
    monkeypatch.setenv("MLFLOW_DISABLE_SCHEMA_DETAILS", "true")
    assert internals.hides_schema_details()


def test_exceptions_have_error_classes_since_3_12():
    """Exceptions have a class in an MLflow that classifies them, and none in an older one."""
    refused = MlflowException("no", error_code=INVALID_PARAMETER_VALUE)
    assert internals.error_class(refused) == (None if mlflow_is_before("3.12") else refused.error_class)


def test_parquet_since_3_10():
    """MLflow's server accepts Parquet exactly if it has the name of that content type."""
    is_refused = internals.refuses_content_type("application/vnd.apache.parquet")
    assert is_refused == (internals.CONTENT_TYPE_PARQUET is None) == mlflow_is_before("3.10")


def test_signatures_from_type_hints_are_marked():
    """Signatures from type hints are still marked."""
    assert internals.is_signature_from_type_hint(Model()) is False


def test_the_type_hint_of_a_model(tmp_path):
    """The item type of the input is found in a loaded model; a model without a type hint has none."""

    class Hinted(PythonModel):
        def predict(self, model_input: list[int]):
            return model_input

    class Plain(PythonModel):
        def predict(self, model_input):
            return model_input

    for model, hint in ((Hinted(), int), (Plain(), None)):
        path = tmp_path / type(model).__name__
        mlflow.pyfunc.save_model(path, python_model=model, pip_requirements=["mlflow"])
        assert item_hint(mlflow.pyfunc.load_model(str(path))) == hint


def test_chatty_loggers_exist():
    """The loggers to silence are those that MLflow's modules use."""
    for name in internals.CHATTY_LOGGERS:
        module = inspect.importlib.import_module(name)  # type: ignore[attr-defined]
        assert module._logger.name == name


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A folder with an MLmodel file, which MLflow reads as it does in a server."""
    Model(run_id="run", flavors={"python_function": {"loader_module": "é: {1}", "n": 1.5, "none": None}}).save(
        tmp_path / "MLmodel"
    )
    monkeypatch.setattr(mlflow.models.model, "yaml", yaml)
    monkeypatch.setattr(yaml, "safe_load", functools.partial(yaml.load, Loader=yaml.SafeLoader))
    return tmp_path


def test_libyaml_reads_the_same(saved, monkeypatch):
    """MLflow gets the same content from libyaml, and does not call PyYAML's own parser."""
    expected = Model.load(str(saved)).to_dict()
    internals.read_mlmodel_files_by_libyaml()
    monkeypatch.setattr(yaml, "safe_load", None)
    assert Model.load(str(saved)).to_dict() == expected


def test_broken_files_have_the_errors_of_pyyaml(saved):
    """A file that is no YAML has the error that MLflow itself shows."""
    (saved / "MLmodel").write_text("flavors: [1\nrun_id: {", encoding="utf-8")
    with pytest.raises(yaml.YAMLError) as expected:
        Model.load(str(saved))
    internals.read_mlmodel_files_by_libyaml()
    with pytest.raises(yaml.YAMLError) as caught:
        Model.load(str(saved))
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("nested", ["[", "{a: ", "- "])
def test_deep_files_do_not_end_the_process(saved, nested):
    """libyaml would overflow the stack of a thread."""
    (saved / "MLmodel").write_text(nested * 50_000, encoding="utf-8")
    internals.read_mlmodel_files_by_libyaml()
    with pytest.raises(RecursionError):
        Model.load(str(saved))
