"""The routes of the page and of the list of models: headers, caching, what service Models says; without a browser."""

import re
from typing import Any

import pytest
import requests
from google.protobuf.json_format import ParseDict

from mlflow_grpc import protos
from mlflow_grpc.http import page
from mlflow_grpc.settings import Settings
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, serving


@pytest.fixture(scope="module")
def server():
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0) as running:
        yield running


def policy(response):
    directives = (directive.split() for directive in response.headers["content-security-policy"].split(";"))
    return {name: sources for name, *sources in directives}


def test_the_page_may_load_and_run_only_its_own_files(server):
    """No inline code, no other host, no frame, and no text that becomes HTML."""
    paths = [path.lstrip("/") for path in files(server)]
    assert {path.rpartition(".")[2] for path in paths} == {"css", "js", "svg"}
    for path in ("", *paths):
        response = requests.get(f"{server.url}/{path}", timeout=30)
        assert response.status_code == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        directives = policy(response)
        assert directives["default-src"] == ["'none'"]
        assert {source for name, sources in directives.items() if name.endswith("-src") for source in sources} == {
            "'none'",
            "'self'",
        }
        assert directives["frame-ancestors"] == directives["form-action"] == directives["base-uri"] == ["'none'"]
        assert directives["require-trusted-types-for"] == ["'script'"]


def files(server):
    """Paths of the files that the page names."""
    return re.findall(r'"(page/[^"]+)"', requests.get(server.url, timeout=30).text)


def test_files_are_kept_for_a_year_and_the_page_is_asked_for_again(server):
    """The address of a file changes with its content; the page itself is answered with 304 if it is the same."""
    response = requests.get(server.url, timeout=30)
    assert response.headers["cache-control"] == "no-cache"
    again = requests.get(server.url, headers={"if-none-match": response.headers["etag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")
    for path in files(server):
        cached = requests.get(f"{server.url}/{path}", timeout=30)
        assert cached.headers["cache-control"] == "public, max-age=31536000, immutable"
    outdated = requests.get(f"{server.url}/page/0123456789abcdef/main.js", timeout=30)
    assert (outdated.status_code, outdated.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "..%2fpage.py", "%2e%2e/page.py"])
def test_no_other_file_is_served(server, name):
    """The names of the files are looked up, and never a path."""
    assert requests.get(f"{server.url}/page/x/{name}", timeout=30).status_code == 404


def test_head_has_no_body(server):
    """HEAD / is what a link checker asks."""
    response = requests.head(server.url, timeout=30)
    assert (response.status_code, response.content) == (200, b"")


def test_models_are_those_of_service_models(server):
    """GET /models is the answer of ListModels, in the JSON of protobuf."""
    answer = requests.get(f"{server.url}/models", timeout=30)
    assert answer.headers["cache-control"] == "no-store"
    call: Any = Caller(server.address).channel.unary_unary("/mlflow_grpc.v1.Models/ListModels")
    response = protos.message_named("mlflow_grpc.v1.ListModelsResponse")
    expected = response.FromString(call(b"", timeout=30))
    assert ParseDict(answer.json(), response()) == expected
    assert answer.json()["models"][0]["batched"] is False, "a value of false is written, too"


def test_the_page_knows_where_grpc_is(server):
    """The port of the running server, and the routes for documents that it has."""
    described = requests.get(f"{server.url}/page/server.json", timeout=30).json()
    assert described["grpc_port"] == int(server.address.rpartition(":")[2])
    assert described["tls"] is False
    for path in page.LINKED:
        exists = requests.get(f"{server.url}{path}", timeout=30).status_code == 200
        assert (path.lstrip("/") in described["links"]) is exists


def test_no_page():
    """A server with the page turned off has neither the page nor its files, and still lists its models."""
    with serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, page=False) as running:
        for path in ("", "page/server.json", "page/x/main.js"):
            assert requests.get(f"{running.url}/{path}", timeout=30).status_code == 404
        assert requests.get(f"{running.url}/models", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://127.0.0.1:8080", "Open http://127.0.0.1:8080 in a browser to try the model"),
        ("http://0.0.0.0:8080", "Open http://localhost:8080 in a browser to try the model"),
        ("https://[::]:8443", "Open https://localhost:8443 in a browser to try the model"),
        ("http://[::1]:80", "Open http://[::1]:80 in a browser to try the model"),
        ("", ""),
    ],
)
def test_the_line_with_the_address(url, line):
    """An address that stands for all of the machine is written so that a browser opens it."""
    assert Settings(model_uri="x").page_line(url) == line
    assert Settings(model_uri="x", page=False).page_line(url) == ""
