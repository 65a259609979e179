"""axe finds no violation of WCAG 2.1 (levels A and AA) on the server's page and on the documentation site."""

import contextlib
import functools
import http.server
import shutil
from pathlib import Path

import pytest

from tests.browser import models
from tests.support.http_server import run_in_thread
from tests.support.node import npm
from tests.support.servers import ROOT

RULES = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
SITE = ROOT / "build" / "site"
SITE_PAGES = (
    "",
    "docs/get-started/",
    "docs/own-model/",
    "docs/from-a-wrapper/",
    "docs/operations/",
    "docs/request-path/",
    "docs/python-api/",
    "docs/command-line/",
    "docs/languages/",
    "docs/metrics/",
    "docs/log-lines/",
    "docs/protos/mlflow/",
    "docs/protos/grpc-service/",
)


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The script of axe-core, in a pinned version."""
    folder = tmp_path_factory.mktemp("axe")
    shutil.copy(Path(__file__).parent / "axe" / "package.json", folder)
    npm(folder, "install", "--no-package-lock")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="session")
def site():
    """The address of the documentation site, served from the files that `make docs` has built."""
    if not SITE.exists():
        pytest.fail("needs the site: make docs")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Writes no line for a request."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        thread = run_in_thread(server)
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def opened(browser, scheme):
    """A page that scripts may be added to, in a color scheme."""
    context = browser.new_context(color_scheme=scheme, bypass_csp=True, viewport={"width": 1300, "height": 900})
    yield context.new_page()
    context.close()


def violations(page, axe):
    """Returns what axe finds on a page, as texts."""
    page.evaluate(axe)
    return [
        f"{violation['id']}: {node['html']}"
        for violation in page.evaluate(RULES)["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_faults(browser, axe, scheme):
    """axe reports a missing label and a faint text, so an empty report means something."""
    with opened(browser, scheme) as page:
        page.set_content("<html lang=en><title>t</title><input><p style='color:#aaa;background:#bbb'>faint</p></html>")
        rules = {violation.partition(":")[0] for violation in violations(page, axe)}
    assert {"label", "color-contrast"} <= rules


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", models.ZOO)
def test_the_page(browser, server, axe, scheme, name):
    """The server's page has no violation with the form of a model, and with an answer or an error."""
    with opened(browser, scheme) as page:
        page.goto(f"{server.url}/#{name}")
        page.get_by_role("heading", name=name, level=2).wait_for()
        before = violations(page, axe)
        page.get_by_role("button", name="Predict").click()
        page.locator(".answer, .field-error, [role=alert]").locator("visible=true").first.wait_for()
        assert [*before, *violations(page, axe)] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", SITE_PAGES)
def test_the_site(browser, site, axe, scheme, path):
    """Pages of the site have no violation, and load nothing from another host."""
    with opened(browser, scheme) as page:
        requested = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(f"{site}/{path}", wait_until="networkidle")
        assert violations(page, axe) == []
    assert [url for url in requested if not url.startswith((site, "data:", "blob:"))] == []
