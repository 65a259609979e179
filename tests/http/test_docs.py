"""The page /docs, which is Swagger UI: its files, its headers, and the page in a browser."""

import re
import shutil
import subprocess

import pytest
import requests

from mlflow_grpc import config
from tests.support.servers import InProcess, serving_models

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def server():
    model = config.ModelConfig(class_path="tests.support.rest_models.Iris", endpoint=True)
    with serving_models([(model, None)], http_port=0) as running:
        yield running


def get(server: InProcess, path: str, **headers: str) -> requests.Response:
    return requests.get(f"{server.url}/{path}", headers=headers, timeout=30)


def test_the_page_has_its_files_from_the_server(server):
    """Each address in the page is relative and answers 200; no text of ours names another host."""
    page = get(server, "docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        response = get(server, address)
        assert response.status_code == 200
        assert not address.startswith(("/", "http"))
    assert "http" not in page.text + get(server, "docs/start.js").text
    assert get(server, "docs/files/no.js").status_code == 404


def test_files_are_kept_by_browsers(server):
    """A file that a browser has is answered with 304."""
    tag = get(server, "docs/files/swagger-ui.css").headers["etag"]
    assert (
        requests.get(f"{server.url}/docs/files/swagger-ui.css", headers={"if-none-match": tag}, timeout=30).status_code
        == 304
    )


def test_the_page_may_load_nothing_else(server):
    """The policy allows scripts, styles and calls of the server itself, and nothing inline."""
    policy = get(server, "docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.deep
def test_the_page_in_a_browser(server, tmp_path):
    """Chromium shows the operations of the document under that policy, without a network but the server."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--virtual-time-budget=20000",
        "--enable-logging=stderr", "--dump-dom", f"{server.url}/docs",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    for path in ("/models/iris_model/invocations", "/api/models/iris_model/prediction", "/openapi.json"):
        assert path in done.stdout or path.lstrip("/") in done.stdout
    assert "Content Security Policy" not in done.stderr
