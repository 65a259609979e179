"""Valid names of models and versions, and the form in which a model's URI is shown.

Rule of this module: it is the only copy of these rules. A valid name can be used unchanged in metadata, health checks
and log lines.
"""

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator

MAX_CHARACTERS = 128


def _checked(name: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{MAX_CHARACTERS}}}", name):
        raise ValueError(f"must have 1 to {MAX_CHARACTERS} letters, digits, '.', '_' and '-'")
    return name


Name = Annotated[str, AfterValidator(_checked)]


def canonical_uri(uri: str) -> str:
    """Returns a model's URI in the one spelling that the server uses.

    MLflow reads `MODELS:/churn/1`, `models:///churn/1` and `models:/churn/1/` as `models:/churn/1`, and treats `runs`
    URIs in the same way. A host after `models://` names another registry and is kept. `~` is expanded to the home
    directory.
    """
    if uri.startswith("~"):
        return str(Path(uri).expanduser())
    match = re.fullmatch(r"(models|runs):(//(?=/))?(/.*?)/*", uri, re.IGNORECASE | re.DOTALL)
    return f"{match[1].lower()}:/{match[3].lstrip('/')}" if match and not match[3].startswith("//") else uri


def can_move(uri: str) -> bool:
    """Returns True if a model's URI may mean another version later: an alias, `latest` or a stage of the registry.

    `models:/name/1`, the id of a logged model and a directory always mean the same model.
    """
    match = re.fullmatch(r"models:/[^/@]+(?:@[^/]+|/([^/]+))", uri)
    return match is not None and not (match[1] or "").isdigit()


def registered_name_and_alias(uri: str) -> tuple[str, str | None]:
    """Returns the registered model in a URI, and the alias; None if the URI has no alias, such as models:/name/latest.

    The name is empty if the URI is not one of a registered model.
    """
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/]+)|/[^/]+)", uri)
    return (match[1], match[2]) if match is not None else ("", None)


def always_same(source: str) -> str:
    """Returns the error text for a model that cannot be tracked, because its URI always means the same version."""
    return f"{source} always means the same version. Name an alias, as in models:/name@champion, or models:/name/latest"


Uri = Annotated[str, AfterValidator(canonical_uri)]


def name_from(text: str) -> str:
    """Returns the valid name that is closest to a text; `model` if no character of the text is valid."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:MAX_CHARACTERS] or "model"


def name_from_uri(uri: str) -> str:
    """Returns the default name of an MLflow model, taken from its URI.

    `models:/iris/1`, `s3://bucket/iris` and `/srv/iris` are all called iris. A symbolic link gives its own name, not
    that of its target: `current -> releases/42` is called current.
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
    """Returns a text with the secrets in its URLs replaced by three asterisks.

    Secrets are passwords, access tokens in front of the host of an HTTP URL, and tokens and signatures in a query. In
    other URLs, such as `ssh://git@host`, a user name without a password is kept.
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
