"""misspellings.py: what is meant for this server and is no setting is told of, and nothing else is."""

import pytest
from mlflow import environment_variables

from mlflow_grpc import declarations, settings
from mlflow_grpc.misspellings import misspelt

SETTING_NAMES = [name for _, info in settings.fields() for name in declarations.env_names(info)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MLFLOW_GRPC_BATCHNG", "MLFLOW_GRPC_BATCHING"),
        ("mlflow_grpc_batching", "MLFLOW_GRPC_BATCHING"),
        ("MLFLOW_GPRC_TLS_KEY", "MLFLOW_GRPC_TLS_KEY"),
        ("MLFLOW_GRPC_TLS_CLIENT_CERT", "MLFLOW_GRPC_TLS_CLIENT_CA"),
        ("MLFLOW_GRPC_MODEL_PATH", "MODEL_PATH"),
        ("MLFLOW_MODEL_WORKERS", "MLFLOW_MODELS_WORKERS"),
        ("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUTS", "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"),
    ],
)
def test_the_nearest_name_is_named(name, meant):
    """One line that names what is ignored and what may have been meant, and not the value."""
    (line,) = misspelt({name: "secret", "PATH": "/bin", "MODEL_PATH": "m"}, SETTING_NAMES)
    assert line == f"{name} is ignored: there is no such setting; did you mean {meant}?"


def test_a_name_that_is_like_none():
    """It has the prefix, so it was meant for this server."""
    (line,) = misspelt({"MLFLOW_GRPC_QQQ": "1"}, SETTING_NAMES)
    assert line.startswith("MLFLOW_GRPC_QQQ is ignored: there is no such setting; `mlflow-grpc serve --help`")


def test_what_kubernetes_sets_for_services_is_not_meant():
    """Services called mlflow-grpc and mlflow-grpc-iris; a NAME_PORT that is no URL of theirs is."""
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
    """No setting of this server, and none that MLflow has, is taken for another one."""
    of_mlflow = [
        variable.name
        for variable in vars(environment_variables).values()
        if hasattr(variable, "name") and hasattr(variable, "get")
    ]
    assert len(of_mlflow) > 50
    assert misspelt(dict.fromkeys([*SETTING_NAMES, *of_mlflow], "x"), SETTING_NAMES) == []
