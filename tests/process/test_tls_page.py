"""The commands of docs/deployment.md for a server with TLS, run against servers with and without client certificates."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
import yaml

from tests.process.conftest import QUICK
from tests.support.servers import ROOT, ready_address, start_server

pytestmark = pytest.mark.slow

SECTION = (ROOT / "docs" / "deployment.md").read_text().partition("\n### TLS in production\n")[2].partition("\n### ")[0]
NAME = "models.example"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the commands name: certificates of the server and of a client, and their authority."""
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    for names, cert, key in (((NAME,), "tls.crt", "tls.key"), (("caller",), "client.pem", "client-key.pem")):
        issued = authority.issue_cert(*names)
        (folder / cert).write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(folder / key)
    return folder


@pytest.fixture(scope="module")
def ports(folder) -> Iterator[dict[bool, tuple[str, str]]]:
    """The gRPC and HTTP ports of two servers; the key is whether they require certificates of clients."""
    flags = ["-m", QUICK, "--http-port", "0", "--tls-cert", f"{folder}/tls.crt", "--tls-key", f"{folder}/tls.key"]
    with ExitStack() as stack:
        found = {}
        for is_mutual in (False, True):
            more = ["--tls-client-ca", f"{folder}/ca.pem"] if is_mutual else []
            process = stack.enter_context(start_server(*flags, *more))
            http_port = process.wait_for(r"HTTP on https://\S+:(\d+)")[1]
            found[is_mutual] = (ready_address(process).rpartition(":")[2], http_port)
        yield found


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    shell = ["/bin/sh", "-c", command]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def here(command: str, ports: tuple[str, str]) -> str:
    """Returns a command with the addresses of a server on this machine; the name in its certificate stays."""
    grpc_port, http_port = ports
    command = command.replace(f"--address {NAME}:50051", f"--address localhost:50051 --tls-server-name {NAME}")
    if "connect-to" not in command:
        command = command.replace(f"https://{NAME}", f"--connect-to {NAME}:8080:localhost:8080 https://{NAME}")
    return command.replace("localhost:8080", f"localhost:{http_port}").replace(":50051", f":{grpc_port}")


def test_the_checks_by_hand(folder, ports):
    """Each command finds a healthy server, those with a certificate also one that requires it, and the others do not."""
    by_hand, on_the_machine, _ = blocks("sh")
    commands = [*by_hand.splitlines(), *on_the_machine.splitlines()]
    assert len(commands) == 5
    for command in commands:
        for is_mutual in (False, True):
            done = run(here(command, ports[is_mutual]), folder)
            is_accepted = not is_mutual or "client-key.pem" in command
            assert (done.returncode == 0) is is_accepted, (command, done.stderr)
            assert ("200 OK" in done.stdout or "SERVING" in done.stdout) is is_accepted


@pytest.mark.parametrize("is_mutual", [False, True])
def test_the_health_check_of_docker(folder, ports, is_mutual):
    """The health check succeeds in a shell with the variable PORT, with the arguments of the page for client certificates."""
    words = shlex.split(blocks("sh")[2].replace("\\\n", " "))
    command = words[words.index("--health-cmd") + 1].replace("/tls/", f"{folder}/")
    if is_mutual:
        assert run(command, folder, PORT=ports[True][0]).returncode == 4
        (more,) = re.findall(r"needs `(--tls-cert .*?)` in the health check", SECTION)
        command = f"{command} {more.replace('/tls/', f'{folder}/')}"
    done = run(command, folder, PORT=ports[is_mutual][0])
    assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr


def test_prometheus_has_the_lines_of_the_page():
    """The comments in Prometheus' configuration are the block of the page."""
    (block,) = blocks("yaml")
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text().partition("fires.\n")[2]
    lines = [line.replace("# ", "", 1) for line in text.splitlines()]
    assert yaml.safe_load("\n".join(lines)) == yaml.safe_load(block)
