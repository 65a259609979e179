"""Addresses in the files of a release: `[project.urls]`, and the links of each README."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from scripts import build_release, repository_links
from tests.support.servers import ROOT

REPOSITORY = "https://forge.example/team/mlflow-grpc"
FOLDERS = list(build_release.FOLDERS.values())
NAMES = ("pyproject.toml", "README.md")
"""Files that a release changes."""


def links(readme: Path) -> list[tuple[str, str]]:
    """Returns the links of a page: an exclamation mark for an image, and the target."""
    return re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", readme.read_text())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the files that a release changes, and of the folders that a README links to."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in NAMES:
            shutil.copy(ROOT / folder / name, tmp_path / folder / name)
    return tmp_path


@pytest.mark.parametrize(("folder", "readme"), [(".", "README.md"), ("client", "client/README.md")])
def test_projects_have_urls(source, folder, readme):
    """Each distribution has the addresses that a package index shows, and its other settings as before."""
    repository_links.write(source, FOLDERS, REPOSITORY, "1.2.3")
    written = tomllib.loads((source / folder / "pyproject.toml").read_text())
    assert written["project"].pop("urls") == {
        "Changelog": f"{REPOSITORY}/blob/v1.2.3/CHANGELOG.md",
        "Documentation": f"{REPOSITORY}/blob/v1.2.3/{readme}",
        "Issues": f"{REPOSITORY}/issues",
        "Source": REPOSITORY,
    }
    assert written == tomllib.loads((ROOT / folder / "pyproject.toml").read_text())


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_of_a_readme_need_no_files_beside_it(source, folder):
    """Links lead to the same files as in the repository, at the released tag, and images to what a browser can show."""
    repository_links.write(source, FOLDERS, REPOSITORY, "1.2.3")
    before, after = links(ROOT / folder / "README.md"), links(source / folder / "README.md")
    paths = []
    for (mark, target), (new_mark, new_target) in zip(before, after, strict=True):
        assert new_mark == mark
        if target.startswith(("https://", "#")):
            assert new_target == target
            continue
        path, *anchor = target.split("#")
        view, _, new_path = new_target.removeprefix(f"{REPOSITORY}/").partition("/v1.2.3/")
        new_path, *new_anchor = new_path.split("#")
        assert (ROOT / new_path).resolve() == (ROOT / folder / path).resolve()
        assert new_anchor == anchor
        assert view == ("raw" if mark else "blob"), new_target
        paths.append(new_path)
    assert len(paths) > 10


def test_folders_have_pages_of_their_own(tmp_path):
    """A link to a folder leads to the list of its files."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "README.md").write_text("[examples](examples), [one file](examples/a.py#L3), [here](#here)")
    repository_links.write(tmp_path, ["."], REPOSITORY, "1.2.3")
    assert (tmp_path / "README.md").read_text() == (
        f"[examples]({REPOSITORY}/tree/v1.2.3/examples), [one file]({REPOSITORY}/blob/v1.2.3/examples/a.py#L3), [here](#here)"
    )


@pytest.mark.parametrize(
    "address",
    ["", "team/mlflow-grpc", "http://forge.example/team/mlflow-grpc", f"{REPOSITORY}/", f'{REPOSITORY}"\n[x]'],
)
def test_other_addresses_are_refused(source, address):
    """An address that is not that of a repository is refused, and no file is changed."""
    with pytest.raises(ValueError, match="is no address of a repository; write it as https:"):
        repository_links.write(source, FOLDERS, address, "1.2.3")
    files = [(source / folder / name, ROOT / folder / name) for folder in FOLDERS for name in NAMES]
    assert all(file.read_text() == original.read_text() for file, original in files)
