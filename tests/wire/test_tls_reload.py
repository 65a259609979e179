"""TLS files that change while the server runs: new connections get them, on both ports; broken ones are not taken."""

import datetime as dt
import logging
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from cryptography import x509

from mlflow_grpc.errors import StartError
from mlflow_grpc.polling import LOOK_INTERVAL_S, SETTLE_S
from mlflow_grpc.settings import Settings
from mlflow_grpc.tls_dates import expiry
from mlflow_grpc.tls_files import TlsFiles
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


def settle(tls: TlsFiles) -> None:
    """Looks as often as a change needs to count."""
    for _ in range(2):
        tls.look()


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
                settle(tls)
            assert [common_name(address, authority, client) for address in ports] == ["server-1"] * 2
            problems = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
            assert len(problems) == 1
            assert "do not go together" in problems[0]

            files["tls_key"].write_bytes(second[1].read_bytes())
            settle(tls)
            assert [common_name(address, authority, client) for address in ports] == ["server-2"] * 2

            install(files, second, other.ca)
            settle(tls)
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
        settle(tls)
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


@pytest.mark.parametrize("year", [2027, 2049, 2050, 2199])
@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CERTIFICATE"])
def test_the_expiry_of_a_certificate(authority, year, label):
    """The time at which the first certificate of a chain expires is the one that a library for certificates reads."""
    not_after = dt.datetime(year, 12, 31, 23, 59, 58, tzinfo=dt.UTC)
    cert, _ = authority.server(not_after=not_after, is_of_child=True)
    expected = x509.load_pem_x509_certificate(cert.read_bytes()).not_valid_after_utc.timestamp()
    assert expiry(b"Subject: x\n" + cert.read_bytes().replace(b"CERTIFICATE", label.encode())) == expected


@pytest.mark.parametrize("days", [-1, 1, 90])
def test_the_expiry_is_a_metric(authority, files, days):
    """The gauge is the expiry of the certificate in use, also of one that has expired or is replaced."""

    def pair(name, days):
        not_after = (dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).replace(microsecond=0)
        return not_after.timestamp(), authority.server(name, not_after=not_after)

    first, first_pair = pair("first", days)
    install(files, first_pair, authority.ca)
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, **files) as server:
        parts: Any = server.server
        gauges = parts.host.gauges
        second, second_pair = pair("second", 30)
        for expected, new in ((first, None), (second, second_pair)):
            if new is not None:
                install(files, new, authority.ca)
                settle(parts._tls)
            server.run(gauges.refresh_all)
            text = server.run(gauges.metrics.text)
            (value,) = re.findall(
                r"^mlflow_grpc_tls_certificate_not_after_timestamp_seconds (\S+)$", text, re.MULTILINE
            )
            assert float(value) == expected


@pytest.mark.parametrize(
    ("name", "problem"),
    [("tls_cert", "has no certificate in PEM format"), ("tls_key", "has no private key in PEM format")],
)
def test_the_file_at_fault_is_named(files, name, problem):
    """The error names the file that is not PEM, with its setting."""
    files[name].write_text("no PEM")
    settings = Settings(model_uri="x", port=0, **files)
    with pytest.raises(StartError, match=f"--{name.replace('_', '-')} {files[name]} {problem}"):
        TlsFiles(settings, files["tls_cert"], files["tls_key"])


@pytest.fixture
def running(files):
    """A server with TLS on both ports."""
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, **files) as server:
        yield server


def names_shown(running, authority):
    """Returns the names of the certificates that both ports show."""
    client = authority.client(NAME)
    addresses = (running.address, running.url.removeprefix("https://"))
    return [common_name(address, authority, client) for address in addresses]


@pytest.mark.parametrize("first", ["tls_cert", "tls_key"])
def test_files_that_are_written_one_after_the_other(authority, files, running, caplog, first):
    """Whichever file comes first, the pair before is shown until the other one has come, and nothing is reported if it
    comes soon."""
    caplog.set_level(logging.INFO)
    tls = running.server._tls
    pair = dict(zip(("tls_cert", "tls_key"), authority.server("server-2"), strict=True))
    second = "tls_key" if first == "tls_cert" else "tls_cert"
    shutil.copy(pair[first], files[first])
    assert tls.look() == SETTLE_S
    assert names_shown(running, authority) == ["server-1"] * 2
    shutil.copy(pair[second], files[second])
    assert tls.look() == SETTLE_S
    assert tls.look() == LOOK_INTERVAL_S
    assert names_shown(running, authority) == ["server-2"] * 2
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_half_of_a_chain_is_not_taken(authority, files, running):
    """A file that is still being written does not count, although its first certificate goes with the key."""
    tls = running.server._tls
    cert, key = authority.server("server-2", is_of_child=True)
    chain = cert.read_text()
    leaf, begin, _ = chain.partition("-----END CERTIFICATE-----\n")
    assert chain.count(begin) > 1
    shutil.copy(key, files["tls_key"])
    files["tls_cert"].write_text(leaf + begin)
    tls.look()
    assert names_shown(running, authority) == ["server-1"] * 2
    files["tls_cert"].write_text(chain)
    settle(tls)
    assert names_shown(running, authority) == ["server-2"] * 2


def test_a_directory_that_is_replaced(authority, tmp_path):
    """Files in a directory behind a symbolic link, which Kubernetes replaces, count once the link is another."""
    for number in (1, 2):
        folder = tmp_path / f"revision-{number}"
        folder.mkdir()
        for source, name in zip(authority.server(f"server-{number}"), ("tls.crt", "tls.key"), strict=True):
            shutil.copy(source, folder / name)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(tmp_path / "revision-1")
    for name in ("tls.crt", "tls.key"):
        (mounted / name).symlink_to(f"..data/{name}")
    paths = {"tls_cert": mounted / "tls.crt", "tls_key": mounted / "tls.key", "tls_client_ca": authority.ca}
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, **paths) as running:
        tls = running.server._tls
        assert tls is not None
        new = mounted / "..data_tmp"
        new.symlink_to(tmp_path / "revision-2")
        new.replace(mounted / "..data")
        settle(tls)
        assert names_shown(running, authority) == ["server-2"] * 2
        (mounted / "..data").unlink()
        for _ in range(3):
            settle(tls)
        assert names_shown(running, authority) == ["server-2"] * 2


def test_a_line_says_that_the_files_are_valid_again(authority, files, running, caplog):
    """After files that are not usable, the previous ones may come back; a line says so once, and only then."""
    caplog.set_level(logging.INFO)
    tls = running.server._tls
    first = {path: path.read_bytes() for path in files.values()}

    def levels() -> list[int]:
        return [record.levelno for record in caplog.records if "TLS files" in record.getMessage()]

    for _ in range(2):
        files["tls_key"].write_bytes(authority.server("server-2")[1].read_bytes())
        settle(tls)
        files["tls_cert"].write_text("no certificate")
        settle(tls)
        assert levels()[-2:] == [logging.ERROR] * 2
        for path, content in first.items():
            path.write_bytes(content)
        for _ in range(2):
            settle(tls)
        assert levels()[-2:] == [logging.ERROR, logging.INFO]
    assert caplog.messages[-1] == "the TLS files are again those that the server uses"
    assert levels() == [logging.ERROR, logging.ERROR, logging.INFO] * 2


@pytest.mark.parametrize(
    ("not_before", "not_after", "problem"), [(1, 2, "it has expired"), (100_000, 100_001, "it is not valid yet")]
)
def test_a_certificate_that_is_out_of_date(authority, files, running, caplog, not_before, not_after, problem):
    """A certificate that clients would refuse by its dates is not taken, and a line says so once; the next one is."""
    tls = running.server._tls
    day = dt.datetime(1970, 1, 1) if not_after == 2 else dt.datetime.now(dt.UTC).replace(tzinfo=None)
    dates = {"not_before": day + dt.timedelta(hours=not_before), "not_after": day + dt.timedelta(hours=not_after)}
    install(files, authority.server("server-2", **dates), authority.ca)
    for _ in range(3):
        settle(tls)
    assert names_shown(running, authority) == ["server-1"] * 2
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("the previous TLS files stay in use")
    assert line.endswith(problem)
    install(files, authority.server("server-3"), authority.ca)
    settle(tls)
    assert names_shown(running, authority) == ["server-3"] * 2


def test_a_server_says_that_its_certificate_has_expired(authority, files, caplog):
    """A server starts with a certificate that has expired, and warns that clients refuse it."""
    dates = {"not_before": dt.datetime(2020, 1, 1), "not_after": dt.datetime(2021, 1, 1)}
    install(files, authority.server("server-2", **dates), authority.ca)
    with serving(FunctionModel(lambda text: text), PlainCodec(), **files):
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("clients refuse the certificate")
    assert line.endswith("it has expired")
