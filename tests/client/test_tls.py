"""TLS and mutual TLS, with certificates of an authority made for the tests."""

import pytest
from mlflow_grpc_client import TLS, Unavailable

from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import serving

pytestmark = pytest.mark.usefixtures("fast_retries")


@pytest.fixture
def tls_server(certificates):
    cert, key = certificates.server
    with serving(FunctionModel(lambda text: text), PlainCodec(), tls_cert=cert, tls_key=key) as server:
        yield server


@pytest.fixture
def mutual_server(certificates):
    cert, key = certificates.server
    with serving(
        FunctionModel(lambda text: text), PlainCodec(), tls_cert=cert, tls_key=key, tls_client_ca=certificates.ca
    ) as server:
        yield server


def test_tls(make_client, tls_server, certificates):
    """A client that trusts the server's authority gets answers and health; paths may be texts."""
    for ca in (certificates.ca, str(certificates.ca)):
        client = make_client(tls_server.address, tls=TLS(ca=ca))
        assert client.predict_text("x") == "x"
        assert client.health() == "SERVING"


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        (lambda certificates: TLS(ca=certificates.other_ca), "CERTIFICATE_VERIFY_FAILED"),
        (lambda certificates: TLS(), "CERTIFICATE_VERIFY_FAILED"),
        (lambda certificates: TLS(ca=certificates.ca, server_name="models.example"), "Hostname Verification"),
        (lambda certificates: None, "Socket closed|end of TCP stream|Connection reset"),
    ],
    ids=["another authority", "the system's authorities", "another name", "no TLS"],
)
def test_an_untrusted_server(make_client, tls_server, certificates, tls, message):
    """A call to a server with an untrusted certificate raises Unavailable with the reason."""
    with pytest.raises(Unavailable, match=message):
        make_client(tls_server.address, tls=tls(certificates), timeout_s=20).predict_text("x")


def test_tls_to_a_plain_server(make_client, certificates):
    """A call with TLS to a server without TLS raises Unavailable."""
    with (
        serving(FunctionModel(lambda text: text), PlainCodec()) as server,
        pytest.raises(Unavailable, match="WRONG_VERSION_NUMBER"),
    ):
        make_client(server.address, tls=TLS(ca=certificates.ca), timeout_s=20).predict_text("x")


def test_the_servers_name(make_client, certificates):
    """A certificate for another name is valid if the client gives that name."""
    cert, key = certificates.server_elsewhere
    with serving(FunctionModel(lambda text: text), PlainCodec(), tls_cert=cert, tls_key=key) as server:
        client = make_client(server.address, tls=TLS(ca=certificates.ca, server_name="models.example"))
        assert client.predict_text("x") == "x"
        with pytest.raises(Unavailable, match="Hostname Verification"):
            make_client(server.address, tls=TLS(ca=certificates.ca), timeout_s=20).predict_text("x")


def test_mutual_tls(make_client, mutual_server, certificates):
    """A client with a certificate of the right authority is accepted; one with another certificate or none is refused."""
    cert, key = certificates.client
    assert make_client(mutual_server.address, tls=TLS(certificates.ca, cert, key)).predict_text("x") == "x"
    for pair in (certificates.stranger, ()):
        with pytest.raises(Unavailable):
            make_client(mutual_server.address, tls=TLS(certificates.ca, *pair), timeout_s=20).predict_text("x")


@pytest.fixture
def broken(certificates, tmp_path):
    """Invalid TLS files: random bytes, empty, and PEM around random bytes."""
    (tmp_path / "junk").write_bytes(b"junk\xff")
    (tmp_path / "empty").write_bytes(b"")
    for label in ("CERTIFICATE", "PRIVATE KEY"):
        (tmp_path / label).write_text(f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    return tmp_path


@pytest.mark.parametrize(
    "tls",
    [
        lambda certificates, broken: TLS(ca=broken / "junk"),
        lambda certificates, broken: TLS(ca=broken / "empty"),
        lambda certificates, broken: TLS(ca=broken / "CERTIFICATE"),
        lambda certificates, broken: TLS(ca=certificates.client[1]),
        lambda certificates, broken: TLS(cert=certificates.client[0], key=broken / "PRIVATE KEY"),
        lambda certificates, broken: TLS(cert=broken / "CERTIFICATE", key=certificates.client[1]),
        lambda certificates, broken: TLS(cert=certificates.client[0], key=certificates.stranger[1]),
        lambda certificates, broken: TLS(cert=certificates.client[1], key=certificates.client[0]),
        lambda certificates, broken: TLS(cert=certificates.client[0]),
        lambda certificates, broken: TLS(key=certificates.client[1]),
    ],
)
def test_invalid_files_are_refused(make_client, certificates, broken, tls):
    """A ValueError names the files when the client is made; gRPC would fail to connect at each call."""
    with pytest.raises(ValueError, match=r"^TLS: "):
        make_client("localhost:1", tls=tls(certificates, broken))


def test_unreadable_files(make_client, certificates, tmp_path):
    """An OSError has the name of the file."""
    for file in (tmp_path / "missing", tmp_path):
        with pytest.raises(OSError, match=str(file)):
            make_client("localhost:1", tls=TLS(ca=file))
