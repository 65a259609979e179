"""The page of a server that needs tokens, in a real browser."""

import pytest
from playwright.sync_api import expect

from mlflow_grpc.config import ModelConfig
from tests.browser import models
from tests.support.access import TOKENS, lines_of
from tests.support.servers import serving_models


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with one model, which needs a token."""
    folder = tmp_path_factory.mktemp("guarded")
    (path, *_) = models.save_all(folder / "models")
    tokens = folder / "tokens"
    tokens.write_text(lines_of(TOKENS))
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
