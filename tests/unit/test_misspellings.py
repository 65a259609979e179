"""misspellings.py: a variable that looks like a setting of this server is reported, and no other."""

import pytest
from mlflow import environment_variables

from mlflow_grpc import settings
from mlflow_grpc.misspellings import flags_by_variable, misspelt

SETTING_NAMES = flags_by_variable(settings.fields())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MLFLOW_GRPC_BATCHNG", "MLFLOW_GRPC_BATCHING"),
        ("mlflow_grpc_batching", "MLFLOW_GRPC_BATCHING"),
        ("MLFLOW_GPRC_TLS_KEY", "MLFLOW_GRPC_TLS_KEY"),
        ("MLFLOW_GRPC_TLS_CLIENT_CERT", "MLFLOW_GRPC_TLS_CLIENT_CA"),
        ("MLFLOW_GRPC_MODEL_PATH", "MODEL_PATH"),
        ("MLFLOW_GRPC_TIMEOUT", "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"),
        ("MLFLOW_GRPC_WORKERS", "MLFLOW_MODELS_WORKERS"),
        ("MLFLOW_MODEL_WORKERS", "MLFLOW_MODELS_WORKERS"),
        ("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUTS", "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"),
    ],
)
def test_the_nearest_name_is_named(name, meant):
    """The line names the ignored variable and the probable setting, but not the value."""
    (line,) = misspelt({name: "secret", "PATH": "/bin", "MODEL_PATH": "m"}, SETTING_NAMES)
    assert line == f"{name} is ignored: there is no such setting; did you mean {meant}?"


def test_unknown_names_with_the_prefix_are_reported():
    """A variable with the prefix but no similar setting is reported, because it is meant for this server."""
    (line,) = misspelt({"MLFLOW_GRPC_QQQ": "1"}, SETTING_NAMES)
    assert line.startswith("MLFLOW_GRPC_QQQ is ignored: there is no such setting; `mlflow-grpc serve --help`")


def test_service_variables_of_kubernetes_are_ignored():
    """Variables that Kubernetes sets for Services called mlflow-grpc and mlflow-grpc-iris are not reported. A NAME_PORT
    that is not a URL is."""
    of_services = {
        f"{name}{key}": value
        for name in ("MLFLOW_GRPC", "MLFLOW_GRPC_IRIS")
        for key, value in {
            "_SERVICE_HOST": "10.0.0.1",
            "_SERVICE_PORT": "50051",
            "_SERVICE_PORT_GRPC": "50051",
            "_PORT": "tcp://10.0.0.1:50051",
            "_PORT_50051_TCP": "tcp://10.0.0.1:50051",
            "_PORT_50051_TCP_PROTO": "tcp",
            "_PORT_50051_TCP_PORT": "50051",
            "_PORT_50051_TCP_ADDR": "10.0.0.1",
        }.items()
    }
    assert misspelt(of_services, SETTING_NAMES) == []
    assert len(misspelt({"MLFLOW_GRPC_IRIS_PORT": "50051", "MLFLOW_GRPC_EMPTY": ""}, SETTING_NAMES)) == 1


def test_names_of_settings_and_of_mlflow_are_not_misspelt():
    """No setting of this server or of MLflow counts as a misspelling of another."""
    of_mlflow = [
        variable.name
        for variable in vars(environment_variables).values()
        if hasattr(variable, "name") and hasattr(variable, "get")
    ]
    assert len(of_mlflow) > 50
    assert misspelt(dict.fromkeys([*SETTING_NAMES, *of_mlflow], "x"), SETTING_NAMES) == []
