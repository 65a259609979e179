"""Wheels of the server and its client, packed from the code that runs here.

Rule of this module: a wheel consists of the imported package and its installed metadata. So it can be packed from an
editable install, a wheel or a repository, without downloads and build steps. Equal code results in equal bytes.
"""

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mlflow_grpc.distribution import CLIENT, SERVER, install_source
from mlflow_grpc.errors import StartError

_PACKAGES = {SERVER: ["mlflow_grpc"], CLIENT: ["mlflow_grpc_client", "_mlflow_grpc_protocol"]}
"""The packages of each distribution."""

_METADATA = ("METADATA", "entry_points.txt")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time in a zip archive; with the times of the files, the bytes of equal code would differ."""

_WHEEL = "Wheel-Version: 1.0\nGenerator: mlflow-grpc\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Wheel:
    """A wheel in memory."""

    name: str
    """Name of the distribution."""
    file_name: str
    data: bytes

    def digest(self) -> str:
        """Returns a hash of the content."""
        return hashlib.sha256(self.data).hexdigest()

    def write(self, directory: Path) -> Path:
        """Writes the wheel into a directory and returns its path."""
        path = directory / self.file_name
        path.write_bytes(self.data)
        return path


def pack_server_and_client() -> tuple[Wheel, Wheel]:
    """Packs the wheels of the server and of the client.

    Raises:
        StartError: The server or the client is not installed here.

    """
    return pack(SERVER), pack(CLIENT)


def pack(name: str) -> Wheel:
    """Packs the wheel of an installed distribution.

    Raises:
        StartError: The distribution is not installed here.

    """
    specs = [importlib.util.find_spec(package) for package in _PACKAGES[name]]
    folders = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        folders = []
    if len(folders) != len(specs):
        source = install_source() if name == SERVER else "the directory client/ of the server's sources"
        raise StartError(f"{name} has to be installed here to be put into an environment: pip install {source}")
    files = {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    package = name.replace("-", "_")
    info = f"{package}-{distribution.version}.dist-info"
    texts = {file: distribution.read_text(file) for file in _METADATA} | {"WHEEL": _WHEEL}
    files |= {f"{info}/{file}": text.encode() for file, text in texts.items() if text is not None}
    return Wheel(name, f"{package}-{distribution.version}-py3-none-any.whl", _archive(files, f"{info}/RECORD"))


def _archive(files: dict[str, bytes], record: str) -> bytes:
    lines = [f"{path},sha256={_record_hash(data)},{len(data)}" for path, data in sorted(files.items())]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in [*sorted(files.items()), (record, "\n".join([*lines, f"{record},,", ""]).encode())]:
            info = zipfile.ZipInfo(path, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return content.getvalue()


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
