"""The three recipes of docs/access.md, run as they are there: tokens, JWTs of an identity provider, certificates."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from mlflow_grpc_client import TLS, Client, Unauthenticated

from mlflow_grpc.access.tokens import parse
from tests.support.access import Authority, IdentityProvider
from tests.support.servers import ROOT, Process, ready_address

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "access.md").read_text()


def section(title: str) -> str:
    """Returns the text below a heading of the page."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def commands(title: str) -> list[str]:
    """Returns the commands of the first block of a section, without those that install packages."""
    block = section(title).partition("```sh\n")[2].partition("```")[0].replace("\\\n", "")
    return [line for line in block.splitlines() if not line.startswith("pip install")]


@pytest.fixture
def folder(tmp_path, iris_path):
    """A folder with the example model, in which the commands run."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "iris").symlink_to(iris_path)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    scripts = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", **more}


def served(command: str, folder: Path, **env: str) -> Process:
    """Starts the command of a recipe on any free port."""
    program, *arguments = shlex.split(command)
    assert (program, arguments[0]) == ("mlflow-grpc", "serve")
    return Process([sys.executable, "-m", "mlflow_grpc", *arguments, "--port", "0"], environment(**env), cwd=folder)


def shell(commands: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs commands of the page in a folder; the first one that fails ends them, and the test."""
    return subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.deep
def test_tokens(folder):
    """The commands make tokens that the server takes from the file, by the flag and by the variable of the manifest."""
    *made, serve = commands("Tokens")
    tokens = {}
    for command in made:
        ran = shell(command, folder)
        tokens[shlex.split(command)[2]] = ran.stderr.split(": ")[-1].strip()
    assert list(tokens) == ["batch", "web"]
    with served(serve, folder) as server:
        address = ready_address(server)
        for token in tokens.values():
            with Client(address, token=token) as client:
                assert [model.name for model in client.models()] == ["iris"]
        with Client(address, token=f"{token}x") as client, pytest.raises(Unauthenticated):
            client.models()

    secret, deployment = yaml.safe_load_all(section("Tokens").partition("```yaml\n")[2].partition("```")[0])
    assert set(parse(secret["stringData"]["tokens.txt"].encode()).values()) == {"batch"}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (variable,), (mount,) = container["env"], container["volumeMounts"]
    assert variable["value"] == f"{mount['mountPath']}/{next(iter(secret['stringData']))}"
    without_flag = serve.replace(" --auth-tokens tokens.txt", "")
    with served(without_flag, folder, **{variable["name"]: str(folder / "tokens.txt")}) as server:
        address = ready_address(server)
        with Client(address, token=tokens["web"]) as client:
            assert client.models()
        with Client(address) as client, pytest.raises(Unauthenticated):
            client.models()


@pytest.mark.deep
def test_jwts(folder):
    """The server takes JWTs of the issuer and for the audience in the command, with the keys of its provider."""
    (serve,) = commands("JWTs of an identity provider")
    with IdentityProvider() as provider:
        provider.add_key("first", "RS256")
        arguments = serve.replace("https://login.example.org/keys", provider.url)
        assert arguments != serve
        with served(arguments, folder) as server:
            address = ready_address(server)
            server.wait_for("keys for JWTs from")
            with Client(address, token=provider.sign()) as client:
                assert client.models()
            with Client(address, token=provider.sign(aud="another")) as client, pytest.raises(Unauthenticated):
                client.models()


@pytest.mark.deep
def test_certificates(folder):
    """The server takes the SPIFFE ids and the DNS names in the command, and no other names of the same authority."""
    (serve,) = commands("Certificates and SPIFFE ids")
    authority = Authority(folder)
    for source, name in zip(
        (*authority.server(), authority.ca), ("server.pem", "server-key.pem", "ca.pem"), strict=True
    ):
        if source != folder / name:
            (folder / name).write_bytes(source.read_bytes())

    def tls(name: x509.GeneralName) -> TLS:
        cert, key = authority.client(name)
        return TLS(ca=authority.ca, cert=cert, key=key)

    with served(serve, folder) as server:
        address = ready_address(server)
        names = (
            x509.UniformResourceIdentifier("spiffe://example.org/ns/prod/sa/web"),
            x509.DNSName("web.clients.example"),
        )
        for allowed in names:
            with Client(address, tls=tls(allowed)) as client:
                assert client.models()
        authority.write_key(folder / "ca-key.pem")
        with_id = section("Certificates and SPIFFE ids").split("```sh\n")[2].partition("```")[0]
        port = address.rpartition(":")[2]
        called = shell(with_id.replace("localhost:50060", f"localhost:{port}"), folder)
        assert called.stdout == '{"predictions": ["setosa", "setosa"]}\n'
        others = (
            x509.UniformResourceIdentifier("spiffe://example.org/ns/test/sa/web"),
            x509.DNSName("clients.example"),
        )
        for other in others:
            with Client(address, tls=tls(other)) as client, pytest.raises(Unauthenticated):
                client.models()
