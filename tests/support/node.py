"""Programs of Node.js: the command of the Node example, and buf."""

import shutil
import subprocess
from pathlib import Path

from tests.support.servers import ROOT


def tool(name: str) -> str:
    """Returns the path of a program of Node.js."""
    path = shutil.which(name)
    assert path, f"{name} is not on the PATH: install Node.js 18 or later, the Node example is tested with it"
    return path


def npm(folder: Path, *arguments: str) -> None:
    """Runs npm to install the packages of a folder."""
    command = [tool("npm"), *arguments, "--prefer-offline", "--no-audit", "--no-fund", "--no-update-notifier"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def install_buf(folder: Path) -> str:
    """Installs buf in a pinned version below a folder, and returns its path."""
    copy = folder / "buf"
    shutil.copytree(ROOT / "tests" / "support" / "buf", copy)
    npm(copy, "install", "--no-package-lock")
    return str(copy / "node_modules" / ".bin" / "buf")
