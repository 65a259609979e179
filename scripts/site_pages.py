"""Writes the pages of the documentation site to build/site-source (`make docs`).

The folder has the layout of the repository, so that links between Markdown files stay as they are. Links to other files
lead to pages that show them. The pages about the command line and the .proto files are written from their sources.
"""

import argparse
import posixpath
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # For the modules beside this one, when it runs as a script.

from scripts import command_line_page, protos_page  # noqa: E402 - after their path
from scripts.markdown_links import IMAGES, change_links  # noqa: E402 - after its path

OUT = ROOT / "build" / "site-source"

PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/*.md",
    "client/*.md",
    "benchmarks/*.md",
    "examples/*.md",
    "tests/*.md",
)
"""Markdown files that are pages, as patterns."""

PROTOS = protos_page.paths()
"""Page of each .proto file of the server, by its path in the repository."""

LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".json": "json",
    ".proto": "proto",
    ".mjs": "javascript",
    ".go": "go",
    ".java": "java",
}
"""Languages of files that pages link to, by suffix."""


def main() -> None:
    """Writes all pages; the folder is emptied before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mermaid", type=Path, required=True, help="mermaid.min.js, which draws the diagrams")
    arguments = parser.parse_args()
    shutil.rmtree(OUT, ignore_errors=True)
    pages = {path.relative_to(ROOT).as_posix() for pattern in PAGES for path in ROOT.glob(pattern)}
    site = Site(pages)
    for page in sorted(pages):
        site.add_page(page)
    for path, text in {"docs/command-line.md": command_line_page.page(), **protos_page.pages()}.items():
        write(path, text)
    for file in ("python-api.md", "extra.css", "scrollable.js"):
        copy(ROOT / "docs" / "site" / file, f"docs/{file}" if file.endswith(".md") else file)
    copy(arguments.mermaid, "mermaid.min.js")


class Site:
    """The pages of the site, and the files that they link to."""

    def __init__(self, pages: set[str]) -> None:
        """Starts without files.

        Args:
            pages: Paths of the Markdown files in the repository.

        """
        self._pages = pages
        self._shown: set[str] = set()

    def add_page(self, page: str) -> None:
        """Writes a page with its links changed to pages of the site, and the files that it links to."""
        folder = posixpath.dirname(page) or "."
        text = (ROOT / page).read_text()
        text = change_links(text, page, lambda path: posixpath.relpath(self._place(path), folder))
        write("index.md" if page == "README.md" else page, text)

    def _place(self, path: str) -> str:
        """Returns the page that stands for a path of the repository, after writing it if it is new."""
        if path == "README.md":
            return "index.md"
        if path in self._pages:
            return path
        if path in PROTOS:
            return PROTOS[path]
        if path.endswith(IMAGES):
            copy(ROOT / path, path)
            return path
        shown = f"{path}/index.md" if (ROOT / path).is_dir() else f"{path}.md"
        if path not in self._shown:
            self._shown.add(path)
            write(shown, "\n".join(shown_file(path)))
        return shown


def shown_file(path: str) -> Iterator[str]:
    """Yields the Markdown of a page that shows a file, or all files of a folder."""
    yield f"# {path}\n"
    listed = subprocess.run(["git", "ls-files", path], capture_output=True, text=True, check=True, cwd=ROOT)
    for file in map(Path, listed.stdout.splitlines()):
        if file.suffix in IMAGES:
            continue
        if file.as_posix() != path:
            yield f"## {file.relative_to(path).as_posix()}\n"
        yield f"````{LANGUAGES.get(file.suffix, 'text')}\n{(ROOT / file).read_text().rstrip()}\n````\n"


def write(path: str, text: str) -> None:
    """Writes a file of the site's source."""
    target = OUT / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def copy(file: Path, path: str) -> None:
    """Copies a file to the site's source."""
    target = OUT / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


if __name__ == "__main__":
    main()
