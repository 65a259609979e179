"""Builds both distributions of a release: an sdist of each, and a wheel from the sdist.

    python -m scripts.build_release                     build HEAD into dist/server and dist/client
    python -m scripts.build_release --version 0.2.0     the same in a version that HEAD does not have yet
    python -m scripts.build_release --repository https://github.com/owner/name     the same with links to a repository

Only files of the commit are built. A version that is given is written into a copy, with its section of CHANGELOG.md, so
that a release can be rehearsed on any day. The address of a repository is written into the copy too; without it the
links of a README lead nowhere on a package index.
"""

import argparse
import datetime
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts import repository_links, set_version

DIST = set_version.ROOT / "dist"

FOLDERS = {"server": ".", "client": "client"}
"""The folder of each distribution's pyproject.toml, by the name of its folder in dist/."""


def build(version: str | None, repository: str | None, dist: Path = DIST) -> None:
    """Replaces dist/ by the distributions of HEAD.

    Args:
        version: A version to write into them; None for that of the commit.
        repository: Address of the repository, for the links on a package index; None for no links.
        dist: The folder to write.

    Raises:
        ValueError: The version or the address is not valid, or CHANGELOG.md has a section for the version already, or
            no changes to release.
        CalledProcessError: A distribution cannot be built; its output is on stderr.

    """
    with TemporaryDirectory() as folder:
        source = Path(folder)
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=set_version.ROOT, capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(source, filter="data")
        if version is not None:
            today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
            set_version.date_changelog(version, today, source)
            set_version.set_version(version, source)
        if repository is not None:
            released = set_version.versions(source)["mlflow_grpc/__init__.py"]
            repository_links.write(source, FOLDERS.values(), repository, released)
        shutil.rmtree(dist, ignore_errors=True)
        for name, path in FOLDERS.items():
            folders = ["--out-dir", str(dist / name), str(source / path)]
            command = [sys.executable, "-m", "uv", "build", "--quiet", "--no-create-gitignore", *folders]
            subprocess.run(command, cwd=source, check=True)


def main() -> None:
    """Reads the command line, builds, and prints the files."""
    parser = argparse.ArgumentParser(description="Build the server and the client into dist/.")
    parser.add_argument("--version", help="a version that the commit does not have yet, such as 0.2.0")
    parser.add_argument("--repository", help="address of the repository, such as https://github.com/owner/name")
    arguments = parser.parse_args()
    try:
        build(arguments.version, arguments.repository)
    except ValueError as error:
        parser.error(str(error))
    for file in sorted(DIST.glob("*/mlflow_grpc*")):
        print(file.relative_to(set_version.ROOT))


if __name__ == "__main__":
    main()
