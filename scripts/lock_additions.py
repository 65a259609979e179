"""Reduces a locked requirements file to what it adds to requirements.txt (`make lock`).

    python scripts/lock_additions.py requirements-dev.txt

The file then begins with `-r requirements.txt`, so that it can be installed by itself. A package is left out where both
files pin the same version, for the same platforms and with the same hashes: what stays is what pip and uv check.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = "requirements.txt"


def entries(text: str) -> tuple[str, list[str]]:
    """Returns the comment at the top of a requirements file, and its entries with their hashes and comments."""
    head, blocks = "", list[str]()
    for line in text.splitlines(keepends=True):
        if line.startswith((" ", "\t")) and blocks:
            blocks[-1] += line
        elif line.startswith("#"):
            head += line
        elif line.strip() and line.strip() != f"-r {BASE}":
            blocks.append(line)
    return head, blocks


def pin(entry: str) -> str:
    """Returns the lines of an entry without the comments about who requires it."""
    lines = (line.strip().removesuffix("\\").strip() for line in entry.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def additions(text: str, base: str) -> str:
    """Returns a requirements file without the entries of another one, to which it refers."""
    head, blocks = entries(text)
    base_pins = {pin(entry) for entry in entries(base)[1]}
    return "".join([head, f"-r {BASE}\n", *(entry for entry in blocks if pin(entry) not in base_pins)])


if __name__ == "__main__":
    base_text = (ROOT / BASE).read_text(encoding="utf-8")
    for name in sys.argv[1:]:
        path = ROOT / name
        path.write_text(additions(path.read_text(encoding="utf-8"), base_text), encoding="utf-8")
