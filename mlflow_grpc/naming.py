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


def canonical_uri(uri: str) -> str:
    """A model's URI in the spelling that all of the server goes by.

    MLflow reads `MODELS:/churn/1`, `models:///churn/1` and `models:/churn/1/` as `models:/churn/1`, and runs likewise.
    A host after `models://` names another registry and stays. `~` is the home directory.
    """
    if uri.startswith("~"):
        return str(Path(uri).expanduser())
    match = re.fullmatch(r"(models|runs):(//(?=/))?(/.*?)/*", uri, re.IGNORECASE | re.DOTALL)
    return f"{match[1].lower()}:/{match[3].lstrip('/')}" if match and not match[3].startswith("//") else uri


Uri = Annotated[str, AfterValidator(canonical_uri)]


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


_USER = re.compile(r"://([^/\s'\"<>?#]*)@")
_SECRET_IN_QUERY = re.compile(
    r"([?&](?:sig|signature|[a-z]*_?token|password|secret|api_?key|x-amz-(?:signature|security-token|credential))=)"
    r"[^&\s'\"<>#,;]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text that may be shown: three asterisks stand for the secrets in its URLs.

    Secrets are passwords, what stands in a password's place before the host of an HTTP URL (access tokens), and tokens
    and signatures in a query. A user name without a password is none in other URLs, such as `ssh://git@host`.
    """
    if "://" not in text:
        return text
    return _SECRET_IN_QUERY.sub(r"\1***", _USER.sub(_masked, text))


def _masked(match: re.Match[str]) -> str:
    user, colon, _ = match[1].partition(":")
    if colon:
        return f"://{user}:***@"
    is_http = match.string[max(0, match.start() - 5) : match.start()].lower().endswith(("http", "https"))
    return "://***@" if is_http else match[0]
