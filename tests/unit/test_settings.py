"""Settings: flag over environment over default, clear refusals, and a page that tells the same."""

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
    """Where MLflow has a setting, its default is ours, but for the port and the environment manager."""
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
    """A flag wins over the environment, the first environment name over the second, any of them over the default."""
    for name, value in zip(reversed(names), reversed(values), strict=True):
        monkeypatch.setenv(name, value)
        loaded = getattr(Settings.load({}), field)
        assert str(loaded).replace("'", '"').removesuffix(".0") == value
    flag = {"port": "9", "host": "z", "timeout_s": "9", "workers": "9", "pyfunc_config": '{"z": 9}'}[field]
    assert str(getattr(Settings.load({field: flag}), field)).replace("'", '"').removesuffix(".0") == flag


def test_a_flag_for_one_model_beats_a_file_of_the_environment(monkeypatch, tmp_path):
    """With -m the file that MLFLOW_GRPC_CONFIG names is not looked at, be it there or not; --config beats MODEL_PATH."""
    monkeypatch.setenv("MLFLOW_GRPC_CONFIG", str(tmp_path / "models.yaml"))
    assert Settings.load({}).config == tmp_path / "models.yaml"
    loaded = Settings.load({"model_uri": "models/iris", "model_name": "flowers"})
    (model,) = config.load(loaded).models
    assert (loaded.config, model.uri, model.name) == (None, "models/iris", "flowers")
    other_file = tmp_path / "other.yaml"
    assert Settings.load({"config": other_file}).config == other_file
    with pytest.raises(StartError, match="--model-uri is for one model"):
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
        ({"pyfunc_config": "[1]"}, {}, "--model-config: must be a JSON object"),
        ({}, {"SERVING_MODEL_CONFIG": "{"}, "SERVING_MODEL_CONFIG: must be a JSON object"),
        ({"tls_cert": "/nowhere"}, {}, "--tls-cert '/nowhere': cannot read /nowhere: No such file"),
        ({"model_name": "a/b"}, {}, "--model-name 'a/b': has to be of 1 to 128 letters, digits, "),
        ({"reflection": "maybe"}, {}, "--reflection 'maybe'"),
    ],
)
def test_refusals_name_the_source(monkeypatch, flags, env, message):
    """A bad value gets one line that names the flag or the environment name it came from."""
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
    ],
)
def test_values_of_other_programs_are_ignored(monkeypatch, name, value, field, default):
    """With a line that says so, unless a flag makes them irrelevant."""
    monkeypatch.setenv(name, value)
    assert getattr(Settings.load({}), field) == default
    (line,) = settings.ignored_environment({})
    assert line.startswith(f"{name} is ignored: {value!r}")
    assert settings.ignored_environment({field: "1"}) == []


def test_the_next_name_counts_where_one_is_ignored(monkeypatch):
    """PORT is another program's, MLFLOW_PORT is not."""
    monkeypatch.setenv("PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("MLFLOW_PORT", "7")
    assert Settings.load({}).port == 7


def test_a_misspelt_name_is_told_of(monkeypatch):
    """Beside what is another program's; empty values are none."""
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
def test_who_reaches_an_address(host, reached):
    """This machine alone, or others."""
    assert exposure(host) == reached


@pytest.mark.parametrize("text", ["'{\"a\": 1}'", ' {"a": 1} ', '"{\\"a\\": 1}"'])
def test_a_model_config_in_quotes(monkeypatch, text):
    """`docker run --env-file` keeps the quotes that a shell would take away."""
    monkeypatch.setenv("SERVING_MODEL_CONFIG", text)
    assert Settings.load({}).pyfunc_config == {"a": 1}


def test_addresses_and_paths_as_people_write_them(monkeypatch):
    """An IPv6 address in brackets, and the home directory as ~."""
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
    """Nobody changes a setting once the server runs."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.load({}).port = 1


def test_every_setting_has_flag_environment_name_and_words():
    """The command line has a flag for each setting, its help says the environment names and the default."""
    help_text = " ".join(CliRunner().invoke(cli.main, ["serve", "--help"]).output.split())
    for _, info in settings.fields():
        flag = declarations.flag(info)
        for spelling in (*flag.names, *([flag.off] if flag.off else [])):
            assert spelling in help_text
        assert f"[env: {', '.join(declarations.env_names(info))};" in help_text
        assert info.description


def test_the_flags_of_mlflow_models_serve_are_taken():
    """Every option of MLflow's own command is an option of ours."""
    from mlflow.models.cli import serve

    theirs = {spelling for option in serve.params for spelling in option.opts}
    ours = {spelling for option in cli.main.commands["serve"].params for spelling in option.opts}
    assert theirs <= ours


def test_the_readme_s_table_is_the_settings():
    """docs/settings.md has a row for each setting, as its declaration has it, and no row is left over."""
    rows = [line for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("| `-")]
    assert rows == settings_table.rows(), "run `python scripts/settings_table.py` and paste it there"


def test_environment_is_read_at_load_only(monkeypatch):
    """Importing the settings reads nothing: what is set later counts."""
    monkeypatch.setenv("PORT", "7")
    assert Settings.load({}).port == 7


@pytest.mark.parametrize("value", ["*", "[]", " "])
def test_what_is_no_host(monkeypatch, value):
    """Ignored as a HOST that somebody else has set; under a name of this server's own refused, with that name."""
    monkeypatch.setenv("HOST", value)
    assert Settings.load({}).host == "127.0.0.1"
    assert "HOST is ignored" in settings.ignored_environment({})[0]
    for flags, source in (({"host": value}, "--host"), ({}, "MLFLOW_GRPC_HOST")):
        monkeypatch.setenv("MLFLOW_GRPC_HOST", value)
        with pytest.raises(StartError, match=f"^{source} .*: must be a name or an address; 0.0.0.0 stands for all of"):
            Settings.load(flags)


def test_a_host_with_spaces_and_where_it_comes_from(monkeypatch):
    """Spaces are no part of it; errors name what it was set by, also in a worker's copy of the settings."""
    assert Settings.load({"host": " [::1] "}).host == "::1"
    assert Settings.load({"host": "a"}).source("host") == "--host"
    monkeypatch.setenv("MLFLOW_HOST", "localhost")
    monkeypatch.setenv("HOST", "x86_64-conda-linux-gnu")
    copied = pickle.loads(pickle.dumps(Settings.load({}).model_copy(update={"port": 1})))  # noqa: S301 - made here
    assert (copied.host, copied.source("host")) == ("localhost", "MLFLOW_HOST")


def test_a_model_config_of_100_000_brackets():
    """Is refused in one line."""
    with pytest.raises(StartError, match=r"^--model-config: must be a JSON object; "):
        Settings.load({"pyfunc_config": "[" * 100_000})
