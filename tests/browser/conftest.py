"""A real Chromium, and a server with models of every signature. What a page must never do fails each test."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from mlflow_grpc.config import ModelConfig
from tests.browser import models
from tests.support.servers import InProcess, serving_models

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/browser/" in item.nodeid:
            item.add_marker(pytest.mark.browser)


def pytest_collection_finish(session):
    """Ends a run that has selected these tests if there is no browser, because a skipped run would look like success."""
    if CHROMIUM is None and any(item.get_closest_marker("browser") for item in session.items):
        pytest.exit("the tests in tests/browser need Chromium; on Debian: apt-get install chromium", returncode=1)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[InProcess]:
    """A server with the models of `tests.browser.models`, one that is not to be called, and one that has failed."""
    folders = models.save_all(tmp_path_factory.mktemp("models"))
    served = [(ModelConfig(uri=str(path), name=path.name, endpoint=True), None) for path in folders]
    hidden = (ModelConfig(uri=str(folders[0]), name="hidden", endpoint=False), None)
    failed = (ModelConfig(uri="/nowhere", name="failed", endpoint=True), f"It is gone: {models.MARKUP}")
    with serving_models([*served, hidden, failed], http_port=0) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not start for root, as whom containers run tests.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@dataclass
class Observed:
    """What a page has done."""

    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)
    refused: int = 0
    """Number of calls that the server refused; the browser writes each of them to the console."""


RECORD_VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@pytest.fixture
def context_options():
    """Options of the browser context, for tests that want others."""
    return {}


@pytest.fixture
def page(browser, server, context_options):
    """A page of the browser; it fails the test if it breaks the policy, raises an error or calls another host."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1200, "height": 900}, **context_options)
    context.add_init_script(RECORD_VIOLATIONS)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    observed = opened.observed = Observed()

    def on_console(message):
        if message.type in ("error", "warning"):
            if message.text.startswith("Failed to load resource") and "/invocations" in message.location["url"]:
                observed.refused += 1
            else:
                observed.errors.append(message.text)

    def on_request(request):
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data"):
            observed.hosts.add(f"{url.scheme}://{url.netloc}")
            observed.paths.append(url.path)

    opened.on("console", on_console)
    opened.on("pageerror", lambda error: observed.errors.append(str(error)))
    opened.on("request", on_request)
    yield opened
    violations = opened.evaluate("window.violations")
    context.close()
    assert observed.errors == []
    assert violations == []
    assert observed.hosts <= {server.url}


@pytest.fixture
def open_model(page):
    """Opens the page at a model."""

    def open_at(name):
        page.goto(f"/#{name}")
        page.get_by_role("heading", name=name, level=2).wait_for()
        return page

    return open_at
