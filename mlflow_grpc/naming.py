"""What models and their versions may be called, and how the URI of a model is shown.

Rule of this module: nothing else says so. A name goes into metadata, health checks and log lines as it is.
"""

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

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


def name_from_uri(uri: str) -> str:
    """The name of an MLflow model that was given none.

    `models:/iris/1`, `s3://bucket/iris` and `/srv/iris` are all iris. A symbolic link gives its own name, not that of
    the directory behind it: `current -> releases/42` is current.
    """
    if uri.startswith("models:/"):
        return name_from(re.split("[/@]", uri.removeprefix("models:").lstrip("/"))[0])
    path = unquote(uri.partition(":")[2]) if re.match(r"^[A-Za-z][A-Za-z0-9+.-]*:", uri) else uri
    return name_from(Path(os.path.normpath(Path(path).expanduser().absolute())).name)


def without_password(uri: str) -> str:
    """A URI that may be shown: three asterisks stand for the password in it."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", uri)
