"""TLS files that change while the server runs: new connections get them, on both ports; broken ones are not taken."""

import logging
import shutil
import socket
from pathlib import Path

import grpc
import pytest
import requests
from cryptography import x509

from tests.support.access import Authority, common_name
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, serving

NAME = x509.DNSName("web.example")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "first")


@pytest.fixture
def files(authority, tmp_path):
    """The files of the settings, which the test replaces."""
    paths = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem", "tls_client_ca": tmp_path / "ca.pem"}
    install(paths, authority.server("server-1"), authority.ca)
    return paths


def install(paths: dict[str, Path], pair: tuple[Path, Path], client_ca: Path) -> None:
    for name, source in zip(paths, (*pair, client_ca), strict=True):
        new = paths[name].with_suffix(".new")
        shutil.copy(source, new)
        new.replace(paths[name])


def credentials(authority, client):
    cert, key = client
    return grpc.ssl_channel_credentials(authority.ca.read_bytes(), key.read_bytes(), cert.read_bytes())


def test_new_files_are_taken(authority, files, tmp_path, caplog):
    """A new certificate, and new authorities of clients; a connection that is open stays. A broken pair changes nothing,
    and a line says so.
    """
    caplog.set_level(logging.INFO)
    client = authority.client(NAME)
    other = Authority(tmp_path / "other")
    stranger = other.client(NAME)
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, **files) as server:
        tls = server.server._tls
        assert tls is not None
        http_address = server.url.removeprefix("https://")
        ports = (server.address, http_address)
        assert [common_name(address, authority, client) for address in ports] == ["server-1"] * 2
        with Caller(server.address, credentials(authority, client)) as before:
            assert before("x") == "x"

            second = authority.server("server-2")
            files["tls_cert"].write_bytes(second[0].read_bytes())  # The key is still that of the first.
            for _ in range(3):
                tls.look()
            assert [common_name(address, authority, client) for address in ports] == ["server-1"] * 2
            problems = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
            assert len(problems) == 1
            assert "do not go together" in problems[0]

            files["tls_key"].write_bytes(second[1].read_bytes())
            tls.look()
            assert [common_name(address, authority, client) for address in ports] == ["server-2"] * 2

            install(files, second, other.ca)
            tls.look()
            assert before("y") == "y"
        with Caller(server.address, credentials(authority, client)) as refused:
            assert refused.outcome("x", timeout=5)[0] == "UNAVAILABLE"
        trusted = grpc.ssl_channel_credentials(
            authority.ca.read_bytes(), stranger[1].read_bytes(), stranger[0].read_bytes()
        )
        with Caller(server.address, trusted) as accepted:
            assert accepted("x") == "x"
        url, verify = f"{server.url}/invocations", str(authority.ca)
        pair = tuple(map(str, stranger))
        assert requests.post(url, data="x", verify=verify, cert=pair, timeout=30).text == "x"  # type: ignore[arg-type]
        with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
            requests.post(url, data="x", verify=verify, cert=tuple(map(str, client)), timeout=30)  # type: ignore[arg-type]


def test_every_address_of_a_name_gets_new_files(authority, files):
    """Of localhost's two addresses, each has the new certificate."""
    client = authority.client(NAME)
    addresses = {info[4][0] for info in socket.getaddrinfo("localhost", 1, type=socket.SOCK_STREAM)}
    with serving(FunctionModel(lambda text: text), PlainCodec(), host="localhost", **files) as server:
        tls = server.server._tls
        assert tls is not None
        install(files, authority.server("server-2"), authority.ca)
        tls.look()
        for address in addresses - {"::1"}:
            assert common_name(f"{address}:{server.server.port}", authority, client) == "server-2"


def test_the_server_looks_by_itself(authority, files):
    """A running server takes new files within a few seconds."""
    client = authority.client(NAME)
    with serving(FunctionModel(lambda text: text), PlainCodec(), **files) as server:
        watching = server.start_task(server.server.watch)
        tls = server.server._tls
        assert tls is not None
        first = tls.current
        install(files, authority.server("server-2"), authority.ca)
        server.wait_until(lambda: tls.current is not first)
        assert common_name(server.address, authority, client) == "server-2"
        watching.cancel()
