"""An example: a copy of its folder, and the blocks of its README.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.servers import ROOT, Process

EXAMPLES = ROOT / "examples"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Example:
    """Runs the commands of an example's page in a copy of its folder."""

    def __init__(self, folder: Path, **variables: str) -> None:
        """Reads the page.

        Args:
            folder: The copy of the example's folder.
            variables: Environment variables of the commands, such as MODEL_ADDRESS.
        """
        self.folder = folder
        self.variables = variables
        blocks = BLOCK.findall((folder / "README.md").read_text())
        self.commands = [text for language, text in blocks if language == "sh"]
        self.outputs = [text for language, text in blocks if language == "text"]
        self.scripts = [text for language, text in blocks if language == "js"]

    def command(self, start: str) -> str:
        """Returns the only block of commands that begins with a text."""
        block: str
        (block,) = [block for block in self.commands if block.startswith(start)]
        return block

    def run(self, command: str, *, timeout_s: float = 300) -> str:
        """Runs a block of commands to its end, and returns what it prints."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, command: str) -> Process:
        """Starts a command that runs until it is stopped."""
        return Process(["bash", "-c", f"exec {command}"], self.environment(), self.folder)

    def environment(self) -> dict[str, str]:
        """Returns the environment of the commands, whose Python is that of the tests."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, **self.variables}
