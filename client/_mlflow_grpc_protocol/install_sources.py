"""Installation sources of the server and its client.

Rule of this module: neither is on a package index. Advice to install one therefore names the checkout, archive or
repository that pip installed it from (`direct_url.json`, PEP 610).
"""

import importlib.metadata
import importlib.util
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

SERVER = "mlflow-grpc"
CLIENT = "mlflow-grpc-client"


@dataclass(frozen=True)
class Source:
    """Location and version from which pip can install a distribution again, as it is installed here."""

    name: str
    location: str
    """A path, or a URL in pip's form; empty if only the version is known."""
    version: str = ""
    editable: bool = False

    def requirement(self, extra: str = "") -> str:
        """Returns the argument of `pip install`, with or without an extra, and without `--editable`.

        Examples: `/home/me/mlflow-grpc[s3]`, `mlflow-grpc[s3] @ git+https://...`, `mlflow-grpc[s3]==0.1.0`.
        """
        extras = f"[{extra}]" if extra else ""
        if not self.location:
            return f"{self.name}{extras}=={self.version}" if self.version else f"{self.name}{extras}"
        if extra and "://" in self.location:
            return f"{self.name}{extras} @ {self.location}"
        return f"{self.location}{extras}"


def source_of(name: str) -> Source:
    """Returns the source of a distribution: only its version if it has no direct URL or its files are gone."""
    checkout = _checkout(name)
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return Source(name, str(checkout or ""))
    text = distribution.read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    editable = bool(origin.get("dir_info", {}).get("editable"))
    location = str(checkout) if checkout else _location(origin)
    return Source(name, location, distribution.version, editable)


def install_argument(name: str, extra: str = "") -> str:
    """Returns the argument after `pip install` that installs a distribution again, quoted for a shell."""
    source = source_of(name)
    argument = shlex.quote(source.requirement(extra))
    return f"-e {argument}" if source.editable else argument


def _checkout(name: str) -> Path | None:
    """Returns the clone that a package is imported from, if pip can install it; else None."""
    spec = importlib.util.find_spec(name.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).resolve().parent.parent
    return directory if (directory / "pyproject.toml").is_file() else None


def _location(origin: dict[str, object]) -> str:
    url = str(origin.get("url", ""))
    if url.startswith("file:"):
        path = Path(unquote(urlsplit(url).path))
        return str(path) if path.exists() else ""
    vcs = origin.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    subdirectory = origin.get("subdirectory")
    return f"{url}#subdirectory={subdirectory}" if subdirectory else url
