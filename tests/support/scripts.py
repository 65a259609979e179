"""Code blocks of pages that run as scripts, in processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.servers import ROOT, Forked, ready_address


def block_with(page: str, text: str) -> str:
    """Returns the only Python block of a page that contains a text."""
    (code,) = (
        code
        for code in re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        if text in code
    )
    return str(code)


def printed_by(code: str, iris_path: Path, folder: Path, **environment: str) -> str:
    """Runs a block against a server of the example model, and returns what it prints.

    Args:
        code: The block, which calls localhost:50051.
        iris_path: Directory of the example model.
        folder: Working directory of the script.
        environment: Variables to change.

    """
    with Forked(["serve", "-m", str(iris_path), "--model-name", "iris", "-p", "0"]) as process:
        (folder / "page.py").write_text(code.replace("localhost:50051", ready_address(process)))
        paths = os.pathsep.join([str(ROOT), str(ROOT / "client"), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "page.py"],
            env={**os.environ, "PYTHONPATH": paths, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
