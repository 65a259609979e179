"""Addresses of the repository for the pages of a package index, which shows each README without the files beside it.

No address is in the repository itself, so that a fork does not send its users elsewhere. A release writes that of the
repository whose workflow builds it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from scripts.markdown_links import IMAGES, change_links

_REPOSITORY = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]*\w")


def write(source: Path, folders: Iterable[str], repository: str, version: str) -> None:
    """Writes the addresses into a copy of the repository: `[project.urls]`, and the links of each README.

    Args:
        source: The copy.
        folders: Folders of the distributions in the copy.
        repository: Address of the repository on a forge, such as https://github.com/owner/name. Paths of its files have
            the form that GitHub, Forgejo and Gitea know.
        version: The version whose tag, `v` and the version, has the files.

    Raises:
        ValueError: The address is not that of a repository.

    """
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"{repository!r} is no address of a repository; write it as https://github.com/owner/name")
    for folder in folders:
        project = source / folder / "pyproject.toml"
        project.write_text(f"{project.read_text()}\n{_urls(folder, repository, version)}")
        readme = source / folder / "README.md"
        page = readme.relative_to(source).as_posix()
        readme.write_text(change_links(readme.read_text(), page, lambda path: _file(source, path, repository, version)))


def _urls(folder: str, repository: str, version: str) -> str:
    """Returns the table `[project.urls]`; the labels are those that package indexes know."""
    files = f"{repository}/blob/v{version}"
    readme = (Path(folder) / "README.md").as_posix()
    return f"""[project.urls]
Changelog = "{files}/CHANGELOG.md"
Documentation = "{files}/{readme}"
Issues = "{repository}/issues"
Source = "{repository}"
"""


def _file(source: Path, path: str, repository: str, version: str) -> str:
    """Returns the address of a file or folder."""
    view = "raw" if path.endswith(IMAGES) else "tree" if (source / path).is_dir() else "blob"
    return f"{repository}/{view}/v{version}/{path}"
