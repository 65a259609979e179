"""The page of a server that needs tokens, in a real browser."""

import pytest
from playwright.sync_api import expect

from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.config import ModelConfig
from tests.browser import models
from tests.support.access import TOKENS, lines_of
from tests.support.servers import serving_models


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The folders of several models, and a file of tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = folder / "tokens"
    tokens.write_text(lines_of(TOKENS))
    return models.save_all(folder / "models"), tokens


@pytest.fixture(scope="module")
def guarded(paths):
    """A server with one model, which needs a token."""
    (path, *_), tokens = paths
    with serving_models(
        [(ModelConfig(uri=str(path), name=path.name, endpoint=True), None)], http_port=0, auth_tokens=tokens
    ) as running:
        yield running


def test_the_page_asks_for_a_token(browser, guarded):
    """The page asks once, again after a wrong token, then works; the token is in no storage, and a reload asks again."""
    context = browser.new_context(base_url=guarded.url)
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(
        "window.violations = [];"
        'document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));'
    )

    def give(token):
        page.get_by_label("Your token").fill(token)
        page.get_by_role("button", name="Continue").click()

    page.goto("/")
    dialog = page.get_by_role("dialog", name="Token")
    expect(dialog).to_contain_text("This server needs a token.")
    give("wrong-token")
    expect(dialog).to_contain_text("The token of the call is not one of this server.")
    give(TOKENS["web"])
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".answer")).to_be_visible()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert TOKENS["web"] not in page.content() + page.url
    assert (errors, page.evaluate("window.violations")) == ([], [])
    page.reload()
    expect(dialog).to_contain_text("This server needs a token.")
    context.close()


def test_the_page_of_a_caller_with_rules(browser, paths):
    """The page has the models that the caller may use, without the figures of others, and asks for these only once."""
    (first, second, *_), tokens = paths
    hosted = [(ModelConfig(uri=str(path), name=path.name, endpoint=True), None) for path in (first, second)]
    rules = (AccessRule(callers=("web",), models=(first.name,)),)
    with serving_models(hosted, access=rules, http_port=0, auth_tokens=tokens) as running:
        context = browser.new_context(base_url=running.url)
        page = context.new_page()
        page.set_default_timeout(20_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(f"{running.url}/")))
        page.goto("/")
        page.get_by_label("Your token").fill(TOKENS["web"])
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#live")).to_be_hidden()
        expect(page.locator("#models li")).to_have_count(1)
        expect(page.locator("#models")).to_contain_text(first.name)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".answer")).to_be_visible()
        assert second.name not in page.content()
        assert asked.count("metrics") == 1
        context.close()
