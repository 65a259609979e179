"""What models and their versions may be called.

Rule of this module: nothing else says so. A name goes into metadata, health checks and log lines as it is.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

MOST_CHARACTERS = 128


def _checked(name: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{MOST_CHARACTERS}}}", name):
        raise ValueError(f"has to be of 1 to {MOST_CHARACTERS} letters, digits, '.', '_' and '-'")
    return name


Name = Annotated[str, AfterValidator(_checked)]


def name_from(text: str) -> str:
    """A name that is as close to a text as a name can be; `model` if nothing of the text can stay."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:MOST_CHARACTERS] or "model"
