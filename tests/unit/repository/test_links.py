"""Links between documentation pages have valid targets."""

import re
import tomllib

import pytest

from scripts import protos_page
from tests.support.servers import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")]
PAGES += [ROOT / "client" / "README.md", ROOT / "benchmarks" / "README.md"]
EXAMPLES = sorted(ROOT.glob("examples/*/README.md"))
"""Pages that the site shows among the files of their folders."""


def anchors(page):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: str(page.relative_to(ROOT)))
def test_link_targets_exist(page):
    """The files and headings that a page links to exist."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)]*)\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page):
    """The repository files that a page names exist."""
    text = page.read_text()
    for path in re.findall(r"`(\w+/[\w./-]+\.(?:py|md|proto|yaml|json))`", text):
        assert (ROOT / path).exists() or (ROOT / "mlflow_grpc" / path).exists(), path


def nav_pages(entries):
    """Yields the pages in the navigation of the documentation site."""
    for entry in entries:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else nav_pages(target)


def test_the_site_has_every_page():
    """The navigation of the site has each page once. Pages that are written when it is built are extra."""
    (settings,) = tomllib.loads((ROOT / "zensical.toml").read_text()).values()
    pages = sorted(nav_pages(settings["nav"]))
    written = ["docs/command-line.md", "docs/python-api.md", "index.md", *protos_page.paths().values()]
    files = [str(path.relative_to(ROOT)) for path in PAGES if path != ROOT / "README.md"]
    assert pages == sorted([*files, "tests/README.md", *written])
