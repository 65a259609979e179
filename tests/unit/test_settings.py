"""Settings: a flag wins over the environment and that over the default; refusals are clear, and the page is complete."""

import os
import pickle

import pytest
from click.testing import CliRunner

from mlflow_grpc import cli, config, declarations, settings
from mlflow_grpc.addresses import exposure
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings
from scripts import settings_table
from tests.support.servers import ROOT

NAMES = [name for name, _ in settings.fields()]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for _, info in settings.fields():
        for name in declarations.env_names(info):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_PATH", "m")


def test_defaults_are_those_of_mlflow():
    """A setting of MLflow has MLflow's default here, except the port and the environment manager."""
    loaded = Settings.load({})
    assert (loaded.host, loaded.workers, loaded.timeout_s) == ("127.0.0.1", 1, 60.0)
    assert loaded.threads == min(32, (os.cpu_count() or 1) + 4)
    assert (loaded.port, loaded.max_message_bytes, loaded.drain_timeout_s) == (50051, 100 * 1024 * 1024, 30.0)


@pytest.mark.parametrize(
    ("names", "field", "values"),
    [
        (("MLFLOW_GRPC_PORT", "PORT", "MLFLOW_PORT"), "port", ("1001", "1002", "1003")),
        (("MLFLOW_GRPC_HOST", "HOST", "MLFLOW_HOST"), "host", ("a", "127.0.0.1", "localhost")),
        (("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",), "timeout_s", ("7",)),
        (("MLFLOW_MODELS_WORKERS",), "workers", ("3",)),
        (("SERVING_MODEL_CONFIG",), "pyfunc_config", ('{"a": 1}',)),
    ],
)
def test_precedence(monkeypatch, names, field, values):
    """A flag wins over the environment, the first environment name over the second, and both over the default."""
    for name, value in zip(reversed(names), reversed(values), strict=True):
        monkeypatch.setenv(name, value)
        loaded = getattr(Settings.load({}), field)
        assert str(loaded).replace("'", '"').removesuffix(".0") == value
    flag = {"port": "9", "host": "z", "timeout_s": "9", "workers": "9", "pyfunc_config": '{"z": 9}'}[field]
    assert str(getattr(Settings.load({field: flag}), field)).replace("'", '"').removesuffix(".0") == flag


def test_a_model_flag_wins_over_a_file_in_the_environment(monkeypatch, tmp_path):
    """With -m, the file in MLFLOW_GRPC_CONFIG is not read, whether it exists or not. --config wins over MODEL_PATH."""
    monkeypatch.setenv("MLFLOW_GRPC_CONFIG", str(tmp_path / "models.yaml"))
    assert Settings.load({}).config == tmp_path / "models.yaml"
    loaded = Settings.load({"model_uri": "models/iris", "model_name": "flowers"})
    (model,) = config.load(loaded).models
    assert (loaded.config, model.uri, model.name) == (None, "models/iris", "flowers")
    other_file = tmp_path / "other.yaml"
    assert Settings.load({"config": other_file}).config == other_file
    with pytest.raises(StartError, match="--model-uri does not work with --config"):
        Settings.load({"config": other_file, "model_uri": "models/iris"})


@pytest.mark.parametrize(
    ("flags", "env", "message"),
    [
        ({}, {"MODEL_PATH": ""}, "no model given: set MODEL_PATH or -m / --model-uri"),
        ({"port": "x"}, {}, "--port 'x': input should be a valid integer"),
        ({"port": "70000"}, {}, "--port '70000': input should be less than or equal to 65535"),
        ({}, {"MLFLOW_GRPC_PORT": "-1"}, "MLFLOW_GRPC_PORT '-1': input should be greater than or equal to 0"),
        ({"host": "http://localhost"}, {}, "--host 'http://localhost': must be a name or an address alone"),
        (
            {"host": "localhost:5000"},
            {},
            "--host 'localhost:5000': must be a name or an address alone; the port goes to",
        ),
        ({"host": "[::1]:5000"}, {}, "the port goes to --port"),
        ({"timeout_s": "0"}, {}, "--timeout '0': input should be greater than 0"),
        ({"timeout_s": "nan"}, {}, "--timeout 'nan'"),
        ({"workers": "0"}, {}, "--workers '0'"),
        ({"env_manager": "poetry"}, {}, "--env-manager 'poetry': input should be 'local'"),
        ({"payload": "xml"}, {}, "--payload 'xml': input should be 'mlflow' or 'text'"),
        ({"pyfunc_config": "[1]"}, {}, "--model-config: must be a JSON object, such as "),
        (
            {"pyfunc_config": "{'a': 1}"},
            {},
            '--model-config: must be a JSON object, such as {"key": "value"}; Expecting',
        ),
        (
            {"pyfunc_config": "7"},
            {},
            '--model-config: must be a JSON object, such as {"key": "value"}; it is a JSON number',
        ),
        ({}, {"SERVING_MODEL_CONFIG": "{"}, "SERVING_MODEL_CONFIG: must be a JSON object"),
        ({"tls_cert": "/nowhere"}, {}, "--tls-cert '/nowhere': cannot read /nowhere: No such file"),
        ({"model_name": "a/b"}, {}, "--model-name 'a/b': must have 1 to 128 letters, digits, "),
        ({"reflection": "maybe"}, {}, "--reflection 'maybe'"),
    ],
)
def test_refusals_name_the_source(monkeypatch, flags, env, message):
    """The one-line error for an invalid value names the flag or environment variable that it came from."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartError) as caught:
        Settings.load(flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "field", "default"),
    [
        ("HOST", "x86_64-conda-linux-gnu", "host", "127.0.0.1"),
        ("HOST", "192.0.2.1", "host", "127.0.0.1"),
        ("MLFLOW_HOST", "no-such-host.invalid", "host", "127.0.0.1"),
        ("PORT", "tcp://10.0.0.1:80", "port", 50051),
        ("PORT", "-1", "port", 50051),
        ("PORT", "70000", "port", 50051),
        ("MLFLOW_PORT", "tcp://10.0.0.1:80", "port", 50051),
        ("MLFLOW_GRPC_PORT", "tcp://10.0.0.1:50051", "port", 50051),
        ("MLFLOW_GRPC_HTTP_PORT", "tcp://10.0.0.1:8080", "http_port", None),
        ("MLFLOW_GRPC_HTTP_PORT", "udp://10.0.0.1:8080", "http_port", None),
        ("MLFLOW_GRPC_HTTP_HOST", "tcp://10.0.0.1:8080", "http_host", None),
    ],
)
def test_values_of_other_programs_are_ignored(monkeypatch, name, value, field, default):
    """A value meant for another program is ignored with a log line, unless a flag makes it irrelevant."""
    monkeypatch.setenv(name, value)
    assert getattr(Settings.load({}), field) == default
    (line,) = settings.ignored_environment({})
    assert line.startswith(f"{name} is ignored: {value!r}")
    assert settings.ignored_environment({field: "1"}) == []


def test_no_setting_is_stopped_by_a_service_of_kubernetes(monkeypatch):
    """Whatever a Service is called, the variable that Kubernetes sets for it does not end the start."""
    names = [name for _, info in settings.fields() for name in declarations.env_names(info) if name.endswith("_PORT")]
    assert len(names) == 3
    for name in names:
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    loaded = Settings.load({})
    assert (loaded.port, loaded.http_port) == (50051, None)
    assert sorted(line.split()[0] for line in settings.ignored_environment({})) == sorted(names)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_a_protocol_of_opentelemetry_does_not_end_the_start(monkeypatch, name):
    """http/json, which this server does not have, is kept for the tracer; this server's own settings override it."""
    monkeypatch.setenv(name, "http/json")
    loaded = Settings.load({})
    assert (loaded.otlp_protocol, loaded.unsupported_protocol) == ("grpc", f"{name}=http/json")
    assert Settings.load({"otlp_protocol": "http/protobuf"}).unsupported_protocol == ""
    monkeypatch.setenv("MLFLOW_GRPC_OTLP_PROTOCOL", "http/protobuf")
    loaded = Settings.load({})
    assert (loaded.otlp_protocol, loaded.unsupported_protocol) == ("http/protobuf", "")
    monkeypatch.setenv("MLFLOW_GRPC_OTLP_PROTOCOL", "http/json")
    with pytest.raises(StartError, match="MLFLOW_GRPC_OTLP_PROTOCOL 'http/json': input should be"):
        Settings.load({})


def test_the_next_name_counts_if_one_is_ignored(monkeypatch):
    """If PORT belongs to another program, MLFLOW_PORT is used."""
    monkeypatch.setenv("PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("MLFLOW_PORT", "7")
    assert Settings.load({}).port == 7


def test_misspelt_names_are_reported(monkeypatch):
    """Misspelt names are reported along with ignored ones; empty values count as unset."""
    monkeypatch.setenv("MLFLOW_GRPC_BATCHNG", "off")
    (line,) = settings.ignored_environment({})
    assert line == "MLFLOW_GRPC_BATCHNG is ignored: there is no such setting; did you mean MLFLOW_GRPC_BATCHING?"


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", ""),
        ("127.1.2.3", ""),
        ("::1", ""),
        ("localhost", ""),
        ("no.such.host.invalid", ""),
        ("0.0.0.0", "all addresses of this machine (0.0.0.0)"),  # noqa: S104 - looked at, not bound
        ("::", "all addresses of this machine (::)"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_exposure_of_addresses(host, reached):
    """The addresses that only this machine, or others, can reach."""
    assert exposure(host) == reached


@pytest.mark.parametrize("text", ["'{\"a\": 1}'", ' {"a": 1} ', '"{\\"a\\": 1}"'])
def test_a_model_config_in_quotes(monkeypatch, text):
    """`docker run --env-file` keeps the quotes that a shell would remove."""
    monkeypatch.setenv("SERVING_MODEL_CONFIG", text)
    assert Settings.load({}).pyfunc_config == {"a": 1}


def test_common_notations_of_addresses_and_paths(monkeypatch):
    """An IPv6 address may be in brackets, and ~ is the home directory."""
    monkeypatch.setenv("HOME", "/home/me")
    loaded = Settings.load({"host": "[::1]", "model_uri": "~/model", "lock": "~/lock.json"})
    assert (loaded.host, loaded.model_uri, str(loaded.lock)) == ("::1", "/home/me/model", "/home/me/lock.json")


def test_tls_settings_go_together(tmp_path):
    """A certificate without a key, or client authorities without both, are refused."""
    file = tmp_path / "x.pem"
    file.write_text("")
    for flags, message in (
        ({"tls_cert": file}, "--tls-cert needs --tls-key"),
        ({"tls_key": file}, "--tls-key needs --tls-cert"),
        ({"tls_client_ca": file}, "--tls-client-ca needs --tls-cert and --tls-key"),
    ):
        with pytest.raises(StartError, match=message):
            Settings.load(flags)


def test_settings_are_frozen():
    """Settings cannot be changed while the server runs."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.load({}).port = 1


def test_every_setting_has_a_flag_and_help():
    """Each setting has a flag, and its help has the environment names and the default."""
    help_text = " ".join(CliRunner().invoke(cli.main, ["serve", "--help"]).output.split())
    for _, info in settings.fields():
        flag = declarations.flag(info)
        for spelling in (*flag.names, *([flag.off] if flag.off else [])):
            assert spelling in help_text
        assert f"[env: {', '.join(declarations.env_names(info))};" in help_text
        assert info.description


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["serve", "-h"], "Option '-h' requires an argument."), (["proto", "--modle", "x"], "No such option '--modle'.")],
)
def test_errors_about_flags_say_where_the_help_is(arguments, problem):
    """An unknown flag, and one without its value, are errors that name the command's help: `-h` is the host in MLflow."""
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert f"Try 'main {arguments[0]} --help' for help." in result.output
    assert problem in result.output


def test_flags_of_mlflow_models_serve_are_accepted():
    """Every option of `mlflow models serve` is an option here."""
    from mlflow.models.cli import serve

    theirs = {spelling for option in serve.params for spelling in option.opts}
    ours = {spelling for option in cli.main.commands["serve"].params for spelling in option.opts}
    assert theirs <= ours


def test_the_settings_page_is_complete():
    """docs/settings.md has a row for each declared setting, and no others."""
    rows = [line for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("| `-")]
    assert rows == settings_table.rows(), "run `python scripts/settings_table.py` and paste it there"


def test_environment_is_read_at_load_only(monkeypatch):
    """Importing the module reads nothing; variables that are set later count."""
    monkeypatch.setenv("PORT", "7")
    assert Settings.load({}).port == 7


@pytest.mark.parametrize("value", ["*", "[]", " "])
def test_invalid_hosts(monkeypatch, value):
    """An invalid host is ignored in HOST, which other programs set, and refused in a variable of this server, with its
    name."""
    monkeypatch.setenv("HOST", value)
    assert Settings.load({}).host == "127.0.0.1"
    assert "HOST is ignored" in settings.ignored_environment({})[0]
    for flags, source in (({"host": value}, "--host"), ({}, "MLFLOW_GRPC_HOST")):
        monkeypatch.setenv("MLFLOW_GRPC_HOST", value)
        with pytest.raises(StartError, match=f"^{source} .*: must be a name or an address; 0.0.0.0 stands for all of"):
            Settings.load(flags)


def test_hosts_with_spaces_and_the_source_of_settings(monkeypatch):
    """Spaces around a host are removed. Errors name the source of a value, also in a worker's copy of the settings."""
    assert Settings.load({"host": " [::1] "}).host == "::1"
    assert Settings.load({"host": "a"}).source("host") == "--host"
    monkeypatch.setenv("MLFLOW_HOST", "localhost")
    monkeypatch.setenv("HOST", "x86_64-conda-linux-gnu")
    copied = pickle.loads(pickle.dumps(Settings.load({}).model_copy(update={"port": 1})))  # noqa: S301 - made here
    assert (copied.host, copied.source("host")) == ("localhost", "MLFLOW_HOST")


def test_a_model_config_of_100_000_brackets():
    """A model config of 100,000 brackets is refused in one line."""
    with pytest.raises(StartError, match=r"^--model-config: must be a JSON object, such as .*; "):
        Settings.load({"pyfunc_config": "[" * 100_000})


@pytest.mark.parametrize(
    ("variables", "is_diverted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, True),
        ({"MLFLOW_GRPC_OTLP_ENDPOINT": "http://c:4317"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "MLFLOW_ENABLE_OTLP_EXPORTER": "false"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "key=value", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, False),
    ],
)
def test_a_variable_that_diverts_mlflow_s_traces_is_told_of(monkeypatch, variables, is_diverted):
    """OpenTelemetry's variables for a collector do, unless MLflow's own say otherwise; none is taken for a misspelling."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lines = settings.ignored_environment({})
    assert [line.split()[0] for line in lines] == (list(variables)[:1] if is_diverted else [])
