"""Links from Markdown files of the repository to its files, for the scripts that copy such pages to another place."""

import posixpath
import re
from collections.abc import Callable

IMAGES = (".png", ".svg")
"""Suffixes of files that pages show."""

_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?\))")


def change_links(text: str, page: str, change: Callable[[str], str]) -> str:
    """Returns the text of a page with other targets of its links to files.

    Args:
        text: The text of the page.
        page: Its path in the repository.
        change: Returns the new target of a link to a file, from the path of the file in the repository.

    """
    folder = posixpath.dirname(page)
    return _LINK.sub(lambda link: link[1] + change(posixpath.normpath(posixpath.join(folder, link[2]))) + link[3], text)
