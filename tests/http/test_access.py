"""Who may call over HTTP: statuses and headers of refusals, which routes are open, certificates, the page's files."""

import contextlib
import http.client
import ipaddress
import logging
import socket

import grpc
import pytest
import requests
from cryptography import x509

from mlflow_grpc import logs
from mlflow_grpc.http.response import CLOSE
from tests.support.access import TOKENS, Authority, bearer, lines_of
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, serving

GOOD = TOKENS["web"]

BARE = 'Bearer realm="mlflow-grpc"'
INVALID = f'{BARE}, error="invalid_token"'


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    return path


@pytest.fixture
def server(tokens):
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, auth_tokens=tokens) as running:
        yield running


def test_a_call_needs_a_token(server):
    """Without a valid token a call gets 401 with WWW-Authenticate (RFC 6750) and MLflow's form of errors."""
    url = f"{server.url}/invocations"
    assert requests.post(url, data="x", headers=bearer(TOKENS["web"]), timeout=30).text == "x"
    for headers, challenge in (({}, BARE), (bearer("wrong"), INVALID), ({"authorization": "Basic eDp5"}, INVALID)):
        response = requests.post(url, data="x", headers=headers, timeout=30)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == challenge
        assert response.json()["error_code"] == "UNAUTHENTICATED"
        assert response.json()["request_id"] == response.headers["x-request-id"]
        assert "wrong" not in response.text


def test_a_large_body_of_an_unknown_caller_is_not_read(server):
    """The answer comes although the body has only begun, and the connection is closed."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.putrequest("POST", "/invocations")
    connection.putheader("content-length", "100000000")
    connection.endheaders(b"begins")
    response = connection.getresponse()
    assert response.status == 401
    assert response.headers[CLOSE[0].decode()] == CLOSE[1].decode()
    connection.close()


def test_a_refused_call_keeps_its_connection(server):
    """A caller whose small body has arrived may call again over the same connection, with another token."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:

        def call(token, body):
            """Sends a complete request at once; returns the status, the body, and whether the server closes."""
            head = f"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
            fields = "".join(f"{name}: {value}\r\n" for name, value in bearer(token).items())
            connection.sendall(f"{head}{fields}\r\n{body}".encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read(), response.will_close

        for _ in range(3):
            status, _, will_close = call("wrong", "x" * 1000)
            assert (status, will_close) == (401, False)
            assert call(GOOD, "x") == (200, b"x", False)


@pytest.mark.parametrize("sent", ["expect: 100-continue\r\n\r\n", "\r\nhalf of it"])
def test_nothing_is_awaited_for_a_refused_call(server, sent):
    """A body that has not arrived is neither asked for nor waited for: the answer comes first, and closes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as opened:
        head = "POST /invocations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\ncontent-length: 100\r\n"
        opened.sendall((head + sent).encode())
        response = http.client.HTTPResponse(opened)
        response.begin()
        assert (response.status, response.headers["connection"]) == (401, "close")
        response.close()


def status_with(server, method, path, *values):
    """Returns the status of a request with any number of authorization headers."""
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        connection.putrequest(method, path)
        for value in values:
            connection.putheader("AuthoriZation", value)
        connection.putheader("content-length", "1")
        connection.endheaders(b"x")
        return connection.getresponse().status


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ((f"Bearer {GOOD}",), 200),
        ((f"BEARER   {GOOD}  ",), 200),
        (("Bearer",), 401),
        ((f"Bearer{GOOD}",), 401),
        ((f"Bearer {GOOD}, Bearer {GOOD}",), 401),
        ((f"Bearer {GOOD}\xe9",), 401),
        ((f"Bearer {'x' * 7000}",), 401),
        ((f"Bearer {GOOD}", f"Bearer {GOOD}"), 401),
        ((f"Bearer {GOOD}", "Bearer wrong"), 401),
        (("Bearer wrong", f"Bearer {GOOD}"), 401),
    ],
)
def test_forms_of_an_authorization(server, values, status):
    """As over gRPC: any case, spaces, and one authorization; for calls, descriptions and the routes under /v2."""
    model = server.server.catalog.entries[0].name
    assert status_with(server, "POST", "/invocations", *values) == status
    assert status_with(server, "GET", "/models", *values) == status
    assert status_with(server, "POST", f"/v2/models/{model}/infer", *values) == (501 if status == 200 else status)
    assert status_with(server, "POST", "/v2/repository/index", *values) == (400 if status == 200 else status)


def test_a_token_that_is_too_large(server):
    """A header above the limit of the server ends its connection, and others are answered."""
    with contextlib.suppress(OSError, http.client.HTTPException):  # The server may close it before all was sent.
        assert status_with(server, "POST", "/invocations", f"Bearer {'x' * 2_000_000}") in (400, 401, 431)
    assert status_with(server, "POST", "/invocations", f"Bearer {GOOD}") == 200


@pytest.mark.parametrize("path", ["/ping", "/health", "/api/health", "/api/health/ready", "/"])
def test_open_routes(server, path):
    """Health, and the files of the page, need no token."""
    assert requests.get(server.url + path, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "path", ["/models", "/metrics", "/version", "/openapi.json", "/docs", "/page/server.json", "/api/models"]
)
def test_closed_routes(server, path):
    """All routes that describe the server or its models need a token."""
    refused = requests.get(server.url + path, timeout=30)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, BARE)
    assert requests.get(server.url + path, headers=bearer(TOKENS["web"]), timeout=30).status_code == 200


def test_the_routes_of_the_open_inference_protocol(server):
    """Health is open, the rest needs a token, and refusals have the protocol's form, which tritonclient reads."""
    model = f"/v2/models/{server.server.catalog.entries[0].name}"
    for path in ("/v2/health/live", "/v2/health/ready", f"{model}/ready"):
        assert requests.get(server.url + path, timeout=30).status_code == 200
    for path in ("/v2", model, f"{model}/config", f"{model}/stats"):
        refused = requests.get(server.url + path, timeout=30)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, BARE)
        assert list(refused.json()) == ["error"]
        assert requests.get(server.url + path, headers=bearer(TOKENS["web"]), timeout=30).status_code == 200
    for path in (f"{model}/infer", "/v2/repository/index"):
        refused = requests.post(server.url + path, data="{}", timeout=30)
        assert (refused.status_code, list(refused.json())) == (401, ["error"])


def test_a_wrong_method_reveals_nothing(server):
    """GET on a route that calls a model needs a token too; an unknown path is 404 for everyone."""
    for path in ("/invocations", "/models/m/invocations", "/api/models/m/prediction"):
        assert requests.get(server.url + path, timeout=30).status_code == 401
    assert requests.get(f"{server.url}/other", timeout=30).status_code == 404


def test_the_files_of_the_page_are_open(server):
    """Every file that the page loads before it asks for a token is open."""
    index = requests.get(server.url, timeout=30).text
    folder = index.partition('src="page/')[2].partition("/")[0]
    for name in ("main.js", "api.js", "page.css"):
        assert requests.get(f"{server.url}/page/{folder}/{name}", timeout=30).status_code == 200


def test_preflights_need_no_token(tokens):
    """A browser sends preflights without a token; the token itself may then be sent from an allowed origin."""
    origin = "https://app.example.com"
    with serving(
        FunctionModel(lambda text: text), PlainCodec(), http_port=0, auth_tokens=tokens, http_cors_origin=origin
    ) as server:
        url = f"{server.url}/invocations"
        preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        assert requests.options(url, headers={"origin": origin, **preflight}, timeout=30).status_code == 200
        refused = requests.post(url, data="x", headers={"origin": origin}, timeout=30)
        assert refused.headers["access-control-allow-origin"] == origin


def test_names_in_certificates(tmp_path):
    """The HTTP port takes the names of certificates that the gRPC port takes."""
    authority = Authority(tmp_path)
    cert, key = authority.server()
    spiffe = "spiffe://example.org/web"
    good = authority.client(x509.UniformResourceIdentifier(spiffe))
    other = authority.client(x509.UniformResourceIdentifier("spiffe://example.com/web"))
    tls = {"tls_cert": cert, "tls_key": key, "tls_client_ca": authority.ca, "auth_tls_san": "spiffe://example.org/*"}
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, **tls) as server:
        for files, status in ((good, 200), (other, 401)):
            pair = (str(files[0]), str(files[1]))
            response = requests.post(
                f"{server.url}/invocations", data="x", verify=str(authority.ca), cert=pair, timeout=30
            )
            assert response.status_code == status


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        (x509.DNSName("web.example"), "web.example"),
        (x509.UniformResourceIdentifier("spiffe://example.org/web"), "spiffe://example.org/web"),
        (x509.RFC822Name("web@example.org"), "web@example.org"),
        (x509.IPAddress(ipaddress.ip_address("10.0.0.7")), "10.0.0.7"),
        (x509.IPAddress(ipaddress.ip_address("2001:db8::ff")), "2001:db8::ff"),
        (x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web")])), None),
        (x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x03web"), None),
        (x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")), None),
        (x509.DNSName("two words"), None),
        (x509.DNSName("web\nforged"), None),
    ],
)
def test_both_ports_know_a_certificate_by_the_same_name(tmp_path, caplog, name, caller):
    """Any type of name is the same over gRPC and HTTP; names that could break a log line do not count."""
    authority = Authority(tmp_path)
    cert, key = authority.server()
    files = authority.client(name)
    tls = {"tls_cert": cert, "tls_key": key, "tls_client_ca": authority.ca, "auth_tls_san": "*"}
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), files[1].read_bytes(), files[0].read_bytes())
    caplog.set_level(logging.INFO, "mlflow_grpc.call")
    with (
        serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, **tls) as server,
        Caller(server.address, credentials) as call,
    ):
        assert call.outcome("x")[0] == ("OK" if caller else "UNAUTHENTICATED")
        pair = (str(files[0]), str(files[1]))
        url, verify = f"{server.url}/invocations", str(authority.ca)
        status = requests.post(url, data="x", verify=verify, cert=pair, timeout=30).status_code
        assert status == (200 if caller else 401)
    logs.calls.flush()
    logged = [record.fields.get("caller") for record in caplog.records if record.msg == "call"]
    assert logged == ([caller] * 2 if caller else [])
