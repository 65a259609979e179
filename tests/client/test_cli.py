"""The command: its output, streams and exit codes; in a new process where that matters."""

import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from mlflow_grpc_client import __version__

from mlflow_grpc.errors import InvalidPayload, ServingError
from tests.client.conftest import INTERRUPTIBLE
from tests.support.commands import predict_command
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import free_port, serving

COMMAND = [sys.executable, "-m", "mlflow_grpc_client"]


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("GRPC_", "PYTHON"))} | more


def run(*arguments, stdin: bytes | int = b"", **more):
    """Returns exit code, stdout and stderr of the command in a new process."""
    streams = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    options: dict[str, Any] = {"capture_output": True, "env": environment(), "timeout": 60} | streams | more
    done = subprocess.run([*COMMAND, *arguments], check=False, **options)
    return done.returncode, (done.stdout or b"").decode(), (done.stderr or b"").decode()


def answer(text):
    """Repeats the text, or fails as the text says."""
    if text == "refuse":
        raise InvalidPayload("The payload\nis \x1b[31mno good.")
    if text == "fail":
        raise ServingError("The model failed.")
    return text


@pytest.fixture(scope="module")
def address():
    with serving(FunctionModel(answer), PlainCodec()) as server:
        yield server.address


@pytest.fixture
def blackhole():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_payload_on_the_command_line(address):
    """The answer goes to stdout unchanged, stderr is empty, and the exit code is 0."""
    assert run("-a", address, '{"inputs": "é"}') == (0, '{"inputs": "é"}\n', "")


def test_the_name_of_a_file_as_the_payload(address, tmp_path):
    """If the refused payload is the path of a file, a second line says how to send the file; not for any other payload."""
    (tmp_path / "refuse").write_text("{}")
    code, _, error = predict_command("-a", address, "refuse", cwd=tmp_path)
    assert code == 3
    assert error.splitlines()[1:] == [
        "warning: refuse is a file, and its name was sent; write @refuse to send the file"
    ]
    (tmp_path / "refuse").unlink()
    assert "warning" not in predict_command("-a", address, "refuse", cwd=tmp_path)[2]


def test_a_csv_file_as_json(address, tmp_path):
    """If a CSV file is refused as JSON, a second line says how to send it; not for CSV, and not for other files."""
    for name in ("rows.csv", "rows.json"):
        (tmp_path / name).write_text("refuse")
    code, _, error = predict_command("-a", address, "@rows.csv", cwd=tmp_path)
    assert code == 3
    assert error.splitlines()[1:] == ["warning: rows.csv was sent as JSON; for CSV add --content-type text/csv"]
    for arguments in (["@rows.csv", "--content-type", "text/csv"], ["@rows.json"]):
        code, _, error = predict_command("-a", address, *arguments, cwd=tmp_path)
        assert (code, "warning" in error) == (3, False)


def test_a_payload_in_a_file(address, tmp_path):
    """@FILE reads a file with any line endings and byte order marks."""
    (tmp_path / "payload.json").write_bytes("\ufeff{}\r\n".encode())
    assert predict_command("-a", address, f"@{tmp_path / 'payload.json'}") == (0, "\ufeff{}\r\n\n", "")


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_payload_on_stdin(address, arguments):
    """The command reads a payload of any size from stdin if the payload is missing or -."""
    payload = "é" * 1_000_000
    assert predict_command("-a", address, *arguments, stdin=payload.encode()) == (0, payload + "\n", "")


def test_answers_are_utf_8_whatever_the_locale(address):
    """Output is UTF-8 in every locale."""
    env = environment(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert run("-a", address, stdin="é".encode(), env=env) == (0, "é\n", "")


def test_a_refused_payload(address):
    """Exit code 3, and one line on stderr without control characters."""
    code, out, error = run("-a", address, "refuse", "--request-id", "mine")
    assert (code, out) == (3, "")
    assert error == "error: INVALID_ARGUMENT: The payload\\nis \\x1b[31mno good. (request id mine)\n"


def test_a_failed_model(address):
    """A call whose model raises ends the command with exit code 1."""
    code, out, error = predict_command("-a", address, "fail")
    assert (code, out) == (1, "")
    assert error.startswith("error: INTERNAL: The model failed. (request id ")


def test_the_content_type(address):
    """The content type is sent, because the server refuses an unknown one."""
    from mlflow_grpc.payload.codec import TextCodec

    with serving(FunctionModel(lambda text: text), TextCodec()) as server:
        assert predict_command("-a", server.address, "x", "--content-type", "text/plain") == (0, "x\n", "")
        assert predict_command("-a", server.address, "x", "--content-type", "text/csv")[0] == 3


@pytest.mark.slow
def test_no_server():
    """A server that cannot be reached ends the command with exit code 4 and its address."""
    port = free_port()
    code, out, error = run("-a", f"127.0.0.1:{port}", "x")
    assert (code, out, error.count("\n")) == (4, "", 1)
    assert str(port) in error


def test_a_name_that_does_not_resolve():
    """A name that does not resolve ends the command with exit code 4 and one line with the name."""
    code, out, error = run("-a", "no-such-host.invalid:1", "-t", "20", "x")
    assert (code, out, error.count("\n")) == (4, "", 1)
    assert "no-such-host.invalid" in error


def test_the_deadline(blackhole):
    """A call that exceeds --timeout ends the command with exit code 5."""
    assert predict_command("-a", blackhole, "-t", "0.2", "x") == (
        5,
        "",
        f"error: DEADLINE_EXCEEDED: No answer came within 0.2 s. No server at {blackhole} has answered this client yet: "
        "check the address, or allow more time.\n",
    )


def test_health(loading, blackhole):
    """4 and NOT_SERVING, then 0 and SERVING; 1 for an unknown service; 5 for no answer in time."""
    assert predict_command("-a", loading.address, "--health") == (4, "NOT_SERVING\n", "")
    loading.run(loading.server.open)
    assert predict_command("-a", loading.address, "--health") == (0, "SERVING\n", "")
    assert predict_command("-a", loading.address, "--health", "MLflow") == (0, "SERVING\n", "")
    assert predict_command("-a", loading.address, "--health", "nonsense")[:2] == (1, "")
    assert predict_command("-a", blackhole, "--health", "-t", "0.2")[:2] == (5, "")


@pytest.mark.slow
def test_tls(certificates):
    """The files of the flags are used. A TLS failure is one line and exit code 4, and an invalid file exit code 2."""
    (cert, key), (client_cert, client_key) = certificates.server, certificates.client
    files = ["--tls-ca", certificates.ca, "--tls-cert", client_cert, "--tls-key", client_key]
    with serving(
        FunctionModel(lambda text: text), PlainCodec(), tls_cert=cert, tls_key=key, tls_client_ca=certificates.ca
    ) as server:
        assert run("-a", server.address, "x", *files) == (0, "x\n", "")
        code, out, error = run("-a", server.address, "x", *files, "--tls-server-name", "other.example")
        assert (code, out, error.count("\n")) == (4, "", 1)
        assert "Hostname Verification" in error
        code, out, error = run("-a", server.address, "x", "--tls")
        assert (code, out, error.count("\n")) == (4, "", 1)
        assert "CERTIFICATE_VERIFY_FAILED" in error
    assert predict_command("x", "--tls-ca", client_key) == (
        2,
        "",
        f"error: TLS: {client_key} does not hold certificates in PEM format\n",
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["@missing.json"], "error: cannot read missing.json: No such file or directory\n"),
        (["@."], "error: cannot read .: Is a directory\n"),
        (["x", "--tls-ca", "missing.pem"], "error: cannot read missing.pem: No such file or directory\n"),
        (["x", "--tls-cert", "missing.pem"], "error: TLS: cert and key go together\n"),
        (["x", "-t", "0"], "error: the timeout is a number of seconds above 0 and up to a year; not 0.0\n"),
        (["--health", "-t", "nan"], "error: the timeout is a number of seconds above 0 and up to a year; not nan\n"),
        (["x", "-a", "http://localhost:1"], "error: the address is host:port, without http://; not 'http://localhost:1'\n"),
        (["x", "--request-id", "é"], "error: metadata 'x-request-id' has characters other than printable ASCII\n"),
        ([b"\xff"], "error: the payload is not UTF-8\n"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_usage(tmp_path, arguments, line):
    """Exit code 2, and one line with the correct usage."""
    assert predict_command(*arguments, cwd=tmp_path) == (2, "", line)


def test_input_that_is_not_utf_8(tmp_path):
    """Exit code 2 for stdin and a file, before anything is sent."""
    (tmp_path / "payload").write_bytes(b"a\xff")
    assert predict_command(stdin=b"a\xff") == (2, "", "error: the payload is not UTF-8\n")
    assert predict_command(f"@{tmp_path / 'payload'}") == (2, "", "error: the payload is not UTF-8\n")


def test_unknown_flags():
    """An unknown flag ends the command with exit code 2 and the usage."""
    code, out, error = predict_command("--nonsense", "x")
    assert (code, out) == (2, "")
    assert error.startswith("usage: mlflow-grpc-predict")


def test_help_and_version():
    """Both print to stdout; the help has every exit code."""
    code, out, _ = predict_command("--help")
    assert code == 0
    assert all(f" {number} " in " ".join(out.split()) for number in (0, 1, 2, 3, 4, 5, 130))
    assert predict_command("--version") == (0, f"{__version__}\n", "")


def test_ctrl_c_during_a_call():
    """Ctrl-C during a call ends the command with exit code 130, without a traceback."""
    model = GatedModel()
    with serving(model, PlainCodec()) as server:
        process = subprocess.Popen(
            [*INTERRUPTIBLE, "-a", server.address, "hold"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        model.wait_until_entered()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 130
        model.let_go()


def test_a_pipe_without_a_reader(address):
    """Exit code 1 without a traceback if the reader has left, as with `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    streams: dict[str, Any] = {"capture_output": False, "stdout": writer, "stderr": subprocess.PIPE}
    try:
        assert run("-a", address, stdin=b"x" * 200_000, **streams) == (1, "", "")
    finally:
        os.close(writer)


def test_a_full_disk(address):
    """A full disk ends the command with exit code 1 and one line with the reason."""
    with open("/dev/full", "wb") as full:
        code, _, error = run("-a", address, "x", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (code, error) == (1, "error: cannot write the answer: No space left on device\n")


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "line"),
    [
        ("<&-", [], 2, "error: no payload is given and stdin is closed\n"),
        (">&-", ["x"], 1, "error: cannot write the answer: stdout is closed\n"),
        ("2>&-", ["refuse"], 3, ""),
    ],
)
def test_closed_standard_streams(address, closed, arguments, code, line):
    """Each closed stream is reported or not needed, and the exit code is correct."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "-a", address, *arguments]
    done = subprocess.run(shell, capture_output=True, env=environment(), timeout=60, check=False)
    assert (done.returncode, done.stderr.decode()) == (code, line)


def test_grpcs_log_can_be_turned_on():
    """GRPC_VERBOSITY in the environment turns gRPC's log on."""
    _, _, error = run("-a", f"127.0.0.1:{free_port()}", "-t", "0.1", "x", env=environment(GRPC_VERBOSITY="DEBUG"))
    assert error.count("\n") > 1


def test_the_installed_command(address):
    """mlflow-grpc-predict runs the same command."""
    script = os.path.join(os.path.dirname(sys.executable), "mlflow-grpc-predict")  # noqa: PTH118, PTH120
    done = subprocess.run(
        [script, "-a", address, '{"a": 1}'], capture_output=True, check=True, env=environment(), timeout=60
    )
    assert json.loads(done.stdout) == {"a": 1}


TIMES = ["queue", "decode", "predict", "encode", "server"]


@pytest.mark.parametrize("flags", [(), ("--stream",)])
def test_where_a_call_spent_its_time(address, flags):
    """--timing prints a bar for each part to stderr, and the parts add up; the answer is on stdout alone."""
    code, out, error = predict_command("-a", address, *flags, "--timing", *([] if flags else ["x"]), stdin=b"x\n")
    assert (code, out) == (0, "x\n")
    *parts, (last, total, _) = [line.split()[:3] for line in error.splitlines()]
    assert [name for name, _, _ in parts] == (TIMES if flags else [*TIMES, "network"])
    assert last == "total"
    assert abs(sum(float(milliseconds) for _, milliseconds, _ in parts) - float(total)) < 0.01
    bars = [line.count("█") for line in error.splitlines()]
    assert 38 <= sum(bars) <= 43


def test_where_a_call_that_failed_spent_its_time(address):
    """The command prints the times of a failed call before its error."""
    code, out, error = predict_command("-a", address, "--timing", "refuse")
    assert (code, out) == (3, "")
    assert [line.split()[0] for line in error.splitlines()][:2] == ["queue", "decode"]
    assert error.splitlines()[-1].startswith("error: ")
