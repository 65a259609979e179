"""Draws the badges of README.md from pyproject.toml (`python scripts/badges.py`).

The badges are files of the repository, so that they are true in any copy of it and load nothing from another host.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images"

CHARACTER = 6.6
"""Width of a character in pixels, at the font size of the badges."""

PADDING, HEIGHT = 9, 20
"""Space beside a text, and height of a badge, in pixels."""


def facts() -> dict[str, str]:
    """Returns what the badges say: the right half by the left half."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = re.findall(r":: Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    ((lowest, below),) = (
        match.groups()
        for requirement in project["dependencies"]
        if (match := re.match(r"mlflow>=([\d.]+),<(\d+)", requirement))
    )
    return {
        "python": f"{pythons[0]} to {pythons[-1]}",
        "mlflow": f"{lowest} to {int(below) - 1}.x",
        "license": project["license"],
    }


def svg(name: str, value: str) -> str:
    """Returns a badge with a dark left half and a blue right half; both have a contrast above 4.5 to white."""
    left, right = (round(len(text) * CHARACTER) + 2 * PADDING for text in (name, value))
    middle = 'y="14" fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{HEIGHT}" role="img" '
            f'aria-label="{name}: {value}">',
            f"<title>{name}: {value}</title>",
            f'<rect width="{left + right}" height="{HEIGHT}" rx="3" fill="#1a5fb4"/>',
            f'<path d="M3 0h{left - 3}v{HEIGHT}H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#444"/>',
            f'<text x="{left / 2:g}" {middle}>{name}</text>',
            f'<text x="{left + right / 2:g}" {middle}>{value}</text>',
            "</svg>\n",
        ]
    )


def contents() -> dict[Path, str]:
    """Returns the text of each badge's file."""
    return {FOLDER / f"badge-{name}.svg": svg(name, value) for name, value in facts().items()}


def main() -> None:
    """Writes the files."""
    for path, text in contents().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
