"""Start: a server that cannot start prints one line with advice, and has an exit code."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from tests.process.conftest import QUICK, payload
from tests.support.servers import ROOT, environment, free_port, ready_address


def refused(process):
    """Returns exit code and the only line of a server that did not start."""
    code = process.wait()
    lines = process.errors
    assert len(lines) == 1, process.output
    assert "Traceback" not in process.output
    assert process.stdout == []
    return code, lines[0]


@pytest.fixture
def broken(model, tmp_path):
    """A copy of the model, for tests that damage it."""
    return shutil.copytree(model, tmp_path / "model")


def test_ready_line(start, connect, model):
    """One line on stdout has model, address and services."""
    process = start("-m", str(model))
    call = connect(process)
    assert call(payload("hello")) == '{"predictions": ["hello"]}'
    assert len(process.stdout) == 1
    for word in ("model", ready_address(process), "MLflow", "grpc.health.v1.Health"):
        assert word in process.stdout[0]
    assert '; no TLS"' in process.stdout[0]
    assert not [line for line in process.stderr if "without TLS" in line]


def test_possible_mistakes_are_logged(start):
    """A misspelt setting, and listening on other addresses without TLS, have a line each."""
    process = start("-h", "192.0.2.1", env={"MLFLOW_GRPC_BATCHNG": "off"})
    assert refused(process)[0] == 1
    warnings = [json.loads(line)["message"] for line in process.stderr if '"level":"warning"' in line]
    assert [line.split(":")[0] for line in warnings] == [
        "MLFLOW_GRPC_BATCHNG is ignored",
        "listening on 192.0.2.1 without TLS and authentication",
    ]


def test_a_misspelt_setting_that_is_needed(start_bare):
    """A server without a model names the misspelt variable before the error."""
    process = start_bare({"MLFLOW_GRPC_CONFG": "models.yaml"})
    assert process.wait() == 2
    warning, error = map(json.loads, process.stderr)
    assert (warning["level"], error["level"]) == ("warning", "critical")
    assert warning["message"].startswith("MLFLOW_GRPC_CONFG is ignored")
    assert error["message"].startswith("no model given")


@pytest.mark.parametrize("log_format", ["auto", "json", "text"])
def test_the_error_has_the_format_of_the_log(start, log_format):
    """Off a terminal the line about why the server cannot start is JSON, as each line; with --log-format text it is
    as on a terminal."""
    process = start("-m", "nowhere", "--log-format", log_format)
    assert process.wait() == 2
    line = process.stderr[-1]
    if log_format == "text":
        assert line.startswith("Error: no model at nowhere")
    else:
        entry = json.loads(line)
        assert (entry["level"], entry["logger"]) == ("critical", "mlflow_grpc")
        assert entry["message"].startswith("no model at nowhere")


def test_environment_alone(start_bare):
    """`MODEL_PATH=... python server.py` works with HOST and PORT in the environment."""
    port = free_port()
    process = start_bare({"MODEL_PATH": QUICK, "PORT": str(port), "HOST": "127.0.0.1"})
    assert ready_address(process) == f"127.0.0.1:{port}"


@pytest.fixture
def start_bare():
    from contextlib import ExitStack

    from tests.support.servers import Process

    with ExitStack() as stack:
        yield lambda env: stack.enter_context(Process([sys.executable, str(ROOT / "server.py")], env))


def test_no_model(start_bare):
    """Without a model, the exit code is 2 and the line names the variable to set."""
    code, line = refused(start_bare({}))
    assert code == 2
    assert "MODEL_PATH" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-p", "x"], "--port"),
        (["--env-manager", "conda"], "--env-manager local"),
        (["--tls-cert", "/nowhere"], "cannot read"),
        (["-h", "no-such-host.invalid"], "no such host"),
        (["-h", "192.0.2.1"], "cannot listen on 192.0.2.1"),
    ],
)
def test_invalid_flags(start, flags, message):
    """An invalid flag has exit code 2, and an unavailable address exit code 1."""
    code, line = refused(start(*flags))
    assert code == (1 if "listen" in message else 2)
    assert message in line


@pytest.mark.parametrize(
    ("cert", "key", "authorities"),
    [("a.pem", "b.key", None), ("junk", "a.key", None), ("a.pem", "junk", None), ("a.pem", "a.key", "junk")],
)
def test_invalid_tls_files(start, tmp_path, cert, key, authorities):
    """The key of another certificate, or a file that is not PEM, has exit code 2, and the line names the flag."""
    import trustme

    for name in "ab":
        certificate = trustme.CA().issue_cert("localhost")
        certificate.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    (tmp_path / "junk").write_text("-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n")
    flags = ["--tls-cert", str(tmp_path / cert), "--tls-key", str(tmp_path / key)]
    flags += ["--tls-client-ca", str(tmp_path / authorities)] if authorities else []
    code, line = refused(start(*flags))
    assert code == 2
    assert ("--tls-client-ca" if authorities else "--tls-key" if key == "junk" else "--tls-cert") in line


def test_model_config_reaches_the_model(start, model, tmp_path, connect):
    """SERVING_MODEL_CONFIG overrides the configuration that the model was logged with, as in MLflow."""
    from mlflow.pyfunc.model import PythonModel

    class Configured(PythonModel):
        def predict(self, context, model_input, params=None):
            return dict(context.model_config)

    path = tmp_path / "configured"
    mlflow.pyfunc.save_model(
        path, python_model=Configured(), model_config={"a": 1, "b": 2}, pip_requirements=["mlflow"]
    )
    call = connect(start("-m", str(path), env={"SERVING_MODEL_CONFIG": '{"b": 3}'}))
    assert call('{"inputs": [1]}') == '{"predictions": {"a": 1, "b": 3}}'


def test_the_reason_for_no_typed_rpcs_is_logged_once(start, tmp_path):
    """A server without typed RPCs logs the reason once, though it looks for models that have some several times."""
    from mlflow.models import infer_signature
    from mlflow.pyfunc.model import PythonModel

    class Constant(PythonModel):
        def predict(self, context, model_input, params=None):
            return [1.0] * len(model_input)

    path = tmp_path / "spark"
    signature = infer_signature(pd.DataFrame({"features": [[0.5]]}))
    mlflow.pyfunc.save_model(path, python_model=Constant(), signature=signature, pip_requirements=["mlflow"])
    content = yaml.safe_load((path / "MLmodel").read_text())
    content["signature"]["inputs"] = '[{"type": "sparkml_vector", "name": "features", "required": true}]'
    (path / "MLmodel").write_text(yaml.dump(content))
    process = start("-m", str(path))
    ready_address(process)
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert process.output.count("no typed RPCs") == 1


def test_an_unknown_flag(start):
    """An unknown flag has exit code 2."""
    process = start("--prot", "1")
    assert process.wait() == 2
    assert "--prot" in process.output


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: shutil.rmtree(path), "no such directory"),
        (lambda path: (path / "MLmodel").unlink(), "has no MLmodel file"),
        (lambda path: (path / "MLmodel").write_text("{nope: ["), "MLmodel file"),
        (lambda path: (path / "MLmodel").write_text("flavors: {crate: {version: 1}}\n"), "python_function"),
        (lambda path: (path / "stepper.py").write_text("raise RuntimeError('boom\\nFAKE')\n"), "boom FAKE"),
        (lambda path: (path / "stepper.py").write_text("import no_such_module_x\n"), "'no_such_module_x'"),
        (lambda path: (path / "stepper.py").write_text("raise SystemExit(0)\n"), "SystemExit"),
        (
            lambda path: (path / "requirements.txt").write_text("no-such-package==1.0\nnumpy<1\n"),
            "no-such-package==1.0",
        ),
        (lambda path: (path / "requirements.txt").write_bytes(b"\xff\xfe"), "requirements"),
    ],
    ids=["missing", "no_mlmodel", "broken_mlmodel", "no_flavor", "raises", "no_module", "exits", "unmet", "binary"],
)
def test_models_that_cannot_be_served(start, broken, spoil, message):
    """A missing, broken or foreign model, or one with unmet requirements, has exit code 2 and one line with advice."""
    spoil(broken)
    code, line = refused(start("-m", str(broken)))
    assert code == 2
    assert message in line
    if "no-such-package" in message:
        assert "numpy<1 (" in line
        assert f".venv/bin/python -m pip install -e {ROOT} no-such-package==1.0 'numpy<1'" in line


@pytest.mark.parametrize("uri", ["models:/nothing/1", "runs:/0123456789abcdef0123456789abcdef/model", "nope://x/y"])
def test_unresolvable_uris(start, uri, registry):
    """A URI that MLflow cannot resolve has exit code 2 and one line."""
    code, line = refused(start("-m", uri, env={"MLFLOW_TRACKING_URI": registry}))
    assert code == 2
    assert uri in line


def test_models_with_unmet_requirements_can_be_served(start, broken, connect):
    """With --requirements warn the model is served although a package is missing, which the log names."""
    (broken / "requirements.txt").write_text("no-such-package==1.0\n")
    process = start("-m", str(broken), "--requirements", "warn")
    assert connect(process)(payload("x")) == '{"predictions": ["x"]}'
    assert "no-such-package==1.0" in process.output


def test_different_versions_are_one_warning(start, broken, connect):
    """Other versions are one warning, as in `mlflow models serve`. --requirements strict refuses the model, with the
    command that installs them."""
    (broken / "requirements.txt").write_text("cloudpickle==1.2.3\nnumpy<1\n")
    process = start("-m", str(broken))
    assert connect(process)(payload("x")) == '{"predictions": ["x"]}'
    warnings = [line for line in process.stderr if "cloudpickle==1.2.3" in line]
    assert len(warnings) == 1
    assert "numpy<1" in warnings[0]
    code, line = refused(start("-m", str(broken), "--requirements", "strict"))
    assert code == 2
    assert "-m pip install" in line
    assert "cloudpickle==1.2.3 'numpy<1'" in line


def test_a_requirement_that_cannot_be_checked(start, broken, connect):
    """It is one warning, as in `mlflow models serve`, and a line that cannot be parsed counts as met.

    --requirements strict refuses the model.
    """
    (broken / "requirements.txt").write_text("mlflow\n???=1\nnumpy; python_full_version ~= '3'\n")
    mlflow.pyfunc.load_model(str(broken))  # MLflow loads the model.
    process = start("-m", str(broken))
    assert connect(process)(payload("x")) == '{"predictions": ["x"]}'
    (warning,) = [line for line in process.stderr if "numpy" in line]
    assert "cannot check the requirement" in warning
    code, line = refused(start("-m", str(broken), "--requirements", "strict"))
    assert code == 2
    assert "cannot check the requirement" in line
    assert "numpy; python_full_version" in line
    assert "--requirements check" in line


def test_a_failed_load_lists_different_versions(start, broken):
    """Different versions may be the reason, so the line has the command that installs the right ones."""
    (broken / "requirements.txt").write_text("cloudpickle==1.2.3\n")
    (broken / "stepper.py").write_text("raise RuntimeError('boom')\n")
    code, line = refused(start("-m", str(broken)))
    assert code == 2
    for excerpt in ("boom", "which may be why: cloudpickle==1.2.3 (", "-m pip install"):
        assert excerpt in line


def test_the_required_version_of_mlflow_does_not_matter(start, broken, connect):
    """Every model pins the MLflow that logged it, and another version loads it, as in MLflow."""
    (broken / "requirements.txt").write_text("mlflow==2.9.0\n")
    assert connect(start("-m", str(broken)))(payload("x")) == '{"predictions": ["x"]}'


def test_a_taken_port(start):
    """A port that another server listens on is an error, and never silently shared."""
    first = start()
    port = ready_address(first).rsplit(":", 1)[1]
    code, line = refused(start("-p", port))
    assert code == 1
    assert f"port {port}" in line
    assert "Address already in use" in line


def test_a_port_taken_on_one_address_of_a_name(start):
    """localhost has several addresses: if one of them is taken, the server binds none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _ = refused(start("-h", "localhost", "-p", str(taken.getsockname()[1])))
    assert code == 1


def test_file_uris_and_relative_paths(start, connect, model):
    """A model may be given as a file: URI."""
    assert connect(start("-m", f"file://{model}"))(payload("x")) == '{"predictions": ["x"]}'


def test_registered_models(start, connect, registry):
    """A registered model is fetched by its URI and has its registered name."""
    process = start("-m", "models:/churn/1", env={"MLFLOW_TRACKING_URI": registry})
    assert connect(process)(payload("x")) == '{"predictions": ["x"]}'
    assert "model churn" in process.stdout[0]


@pytest.mark.parametrize(
    ("closed", "unread", "workers"),
    [
        (">&-", (), 1),
        pytest.param("2>&-", (), 1, marks=pytest.mark.deep),
        ("<&- >&- 2>&-", (), 2),
        pytest.param("", ("stdout",), 1, marks=pytest.mark.deep),
        ("", ("stdout", "stderr"), 2),
    ],
)
def test_closed_and_unread_standard_streams(closed, unread, workers):
    """With stdout, stderr or all streams closed, or without readers, a server still answers and ends cleanly, with
    workers too."""
    port = free_port()
    reading, writing = os.pipe()
    os.close(reading)
    command = f"exec {sys.executable} {ROOT / 'server.py'} -m {QUICK} -p {port} -w {workers} {closed}"
    streams: dict[str, Any] = {"stderr": subprocess.DEVNULL, **dict.fromkeys(unread, writing)}
    child = subprocess.Popen(["/bin/sh", "-c", command], env=environment(None), **streams)
    os.close(writing)
    try:
        import grpc

        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        health: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        while health(b"", wait_for_ready=True, timeout=60) != b"\x08\x01":
            pass
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("reader", [pytest.param("hangs", marks=pytest.mark.deep), "has gone"])
def test_the_exit_code_does_not_need_a_reader(reader):
    """The exit code does not depend on a reader of the output."""
    reading, writing = os.pipe()
    if reader == "hangs":
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(1 << 16))
        os.set_blocking(writing, True)
    else:
        os.close(reading)
    command = [sys.executable, str(ROOT / "server.py"), "--port", "0", "-m", "mlmodel:no_such_module.Model"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writing)
    try:
        assert started.wait(30) == 2
    finally:
        started.kill()
        started.wait()
        os.close(writing)
        if reader == "hangs":
            os.close(reading)
