"""Who may call a server process: the command for tokens, files that change, workers, and the lines at the start."""

import hashlib
import re

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from mlflow_grpc_client import Client, Unauthenticated

from mlflow_grpc import config
from mlflow_grpc.access.permits import Permits
from mlflow_grpc.choices import Service
from mlflow_grpc.cli import main
from tests.support.access import TOKENS, Authority, common_name, lines_of
from tests.support.servers import ROOT, ready_address, start_server

STEPPER = "mlmodel:tests.support.quick_stepper.Stepper"


def token_command(*arguments: str, stdin: str = "") -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(main, ["token", *arguments], input=stdin)


def test_the_command_makes_a_token():
    """Stdout has the line for the file, and stderr the token; with --stdin, the token is the caller's own."""
    made = token_command("batch")
    assert made.exit_code == 0
    token = made.stderr.split(": ")[-1].strip()
    assert made.stdout == lines_of({"batch": token})
    assert len(token) == 43
    assert token_command("batch").stdout != made.stdout
    own = token_command("web", "--stdin", stdin="a-token-of-my-own\n")
    assert (own.stdout, own.stderr) == (lines_of({"web": "a-token-of-my-own"}), "")
    for arguments, stdin in ((("two words",), ""), (("web", "--stdin"), "short\n"), (("#web",), "")):
        refused = token_command(*arguments, stdin=stdin)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert refused.stderr.startswith("Error: ")


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.deep), "2"])
def test_a_changed_file_takes_effect(tmp_path, workers):
    """In each worker, a new token is valid after a while and an old one is not; a broken file changes nothing."""
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    with start_server("-m", STEPPER, "-w", workers, "--auth-tokens", str(path), "--log-level", "debug") as server:
        address = ready_address(server)
        with Client(address, token=TOKENS["web"]) as client:
            assert client.models()
        new = {"web": "the-next-token-of-web"}
        path.write_text(lines_of(new))
        server.wait_for("has changed: 1 tokens of 1 callers", times=int(workers))
        for _ in range(4):
            with Client(address, token=new["web"]) as client:
                assert client.models()
            with Client(address, token=TOKENS["web"]) as client, pytest.raises(Unauthenticated):
                client.models()
        path.write_text("web not-a-digest\n")
        server.wait_for("the previous tokens stay valid", times=int(workers))
        with Client(address, token=new["web"]) as client:
            assert client.models()
    for token in (*TOKENS.values(), *new.values(), "not-a-digest"):
        assert token not in server.output
        assert hashlib.sha256(token.encode()).hexdigest() not in server.output


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.deep), "2"])
def test_a_server_takes_new_tls_files(tmp_path, workers):
    """Each worker shows a new certificate on both ports; one whose key is missing is reported, and not shown."""
    authority = Authority(tmp_path)
    client = authority.client(x509.DNSName("web.example"))
    cert, key = authority.server("server")
    flags = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(authority.ca), "--http-port", "0"]
    with start_server("-m", STEPPER, "-w", workers, *flags) as server:
        http = server.wait_for(r"HTTP on https://([\d.]+:\d+)")[1]
        # The kernel distributes connections, so several of them reach each worker.
        ports = (ready_address(server), http) * (6 if workers == "2" else 1)
        other = authority.server("other")
        cert.write_bytes(other[0].read_bytes())
        problem = "the previous TLS files stay in use, because the new ones are not usable: .*do not go together"
        server.wait_for(problem, times=int(workers))
        assert {common_name(address, authority, client) for address in ports} == {"server"}
        key.write_bytes(other[1].read_bytes())
        server.wait_for("new TLS files", times=int(workers))
        assert {common_name(address, authority, client) for address in ports} == {"other"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--auth-tokens", "/missing"], "--auth-tokens '/missing': cannot read /missing: No such file or directory"),
        (["--auth-jwt-issuer", "https://x"], "--auth-jwt-issuer needs --auth-jwt-audience and --auth-jwt-jwks too"),
        (["--auth-tls-san", "a"], "--auth-tls-san needs --tls-client-ca"),
        (
            ["--auth-jwt-issuer", "i", "--auth-jwt-audience", "a", "--auth-jwt-jwks", "http://10.0.0.1/keys"],
            "--auth-jwt-jwks 'http://10.0.0.1/keys': must be an https:// URL or a file",
        ),
    ],
)
def test_settings_that_do_not_go_together(flags, expected):
    """A wrong setting ends the start with exit code 2 and one line."""
    with start_server("-m", STEPPER, *flags) as server:
        assert server.wait() == 2
    assert expected in server.stderr[-1]


@pytest.mark.parametrize("is_recognized", [False, True])
def test_a_line_says_what_an_exposed_port_lacks(tmp_path, is_recognized):
    """Without TLS, one line warns; it names authentication too, if there is none."""
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    flags = ["--auth-tokens", str(path)] if is_recognized else []
    with start_server("-m", STEPPER, "--host", "0.0.0.0", *flags) as server:  # noqa: S104 - what is tested
        ready_address(server)
    assert any("no TLS, callers need a token" in line for line in server.output.splitlines()) is is_recognized
    lines = [line for line in server.output.splitlines() if "listening on all addresses" in line]
    assert len(lines) == 1
    assert ("without TLS and authentication: anyone" in lines[0]) is not is_recognized
    assert ("can read the traffic and the tokens in it" in lines[0]) is is_recognized


def test_the_rules_of_the_page_are_valid(tmp_path):
    """The configuration in docs/access.md can be read, and its rules are as the page says."""
    text = (ROOT / "docs" / "access.md").read_text()
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "access:" in block]
    path = tmp_path / "models.yaml"
    path.write_text(block)
    rules = Permits(config.read(path).access)
    assert rules.of("batch").allows_model(Service.PREDICT, "iris", "1")
    assert not rules.of("web").allows(Service.PREDICT)
    assert rules.of("web").allows_model(Service.MODELS, "iris", "1")
    assert [name for name in ("batch", "web", "prometheus") if rules.of(name).allows(Service.METRICS)] == ["prometheus"]
