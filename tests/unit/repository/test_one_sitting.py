"""A reader who follows all pages in one sitting stops no server, and stays in the root of the clone."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.servers import ROOT

PAGES = [ROOT / "README.md", ROOT / "client" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES += [ROOT / "examples" / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
SHELL = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WRITTEN_BY_SHELL = re.compile(r"(?:^|\s)(?:-o|-O|-out|-keyout|>>?|mkdir -p)\s+([\w./$-]*\w)", re.MULTILINE)
WRITTEN_BY_PYTHON = re.compile(r"""(?:save_model\(\s*(?:[\w."]+, )?|\.to_(?:csv|parquet)\()"([\w./-]+)\"""")
SERVE = re.compile(r"^(?:\$ )?(?:\w+=\S+ )*(mlflow-grpc serve|mlflow models serve)\b")

MAKE_SERVE = {"50051", "8080"}
OTHERS_OF_MAKE_SERVE = {"50061", "8090"}
"""Those that the pages advise if the ports of `make serve` are taken."""
NOT_IN_A_CLONE = ("models:/churn", "rest_config.yaml", "models.yaml")
"""Models and files that the reader has, so that nobody runs these commands unchanged."""


def servers(text: str) -> Iterator[tuple[int, str, set[str]]]:
    """Yields the place, the command and the ports of each server that a page starts in a clone."""
    for block in SHELL.finditer(text):
        for line in block[1].replace("\\\n", " ").splitlines():
            started = SERVE.match(line)
            if started is None or any(name in line for name in NOT_IN_A_CLONE):
                continue
            words = shlex.split(line)
            flags = dict(pairwise(words))
            default = "50051" if started[1] == "mlflow-grpc serve" else "5000"
            ports = {flags.get("-p", default)} | ({flags["--http-port"]} if "--http-port" in flags else set())
            yield block.start(), line.strip(), ports


def faults(texts: dict[str, str]) -> list[str]:
    """Returns a line for each server whose port another one has at the same time."""
    holders = dict.fromkeys(MAKE_SERVE | OTHERS_OF_MAKE_SERVE, "make serve")
    found = []
    for page, text in texts.items():
        last: dict[str, int] = {}
        for place, command, ports in servers(text):
            for port in sorted(ports):
                if holders.setdefault(port, page) != page:
                    found.append(f"{page}: {command}: {holders[port]} has the port {port}")
                elif port in last and "Ctrl-C" not in text[last[port] : place]:
                    found.append(f"{page}: {command}: say that Ctrl-C stops the server before on the port {port}")
                last[port] = place
    return found


def test_each_page_has_ports_of_its_own():
    """No two pages start servers on one port, and a page says which of its own servers to stop before another one."""
    texts = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
    assert faults(texts) == []
    assert len([server for text in texts.values() for server in servers(text)]) >= 18


def test_calls_go_to_servers_of_the_page():
    """An address for calls is that of `make serve`, or of a server that the page starts."""
    for page in PAGES:
        text = page.read_text()
        started = {port for *_, ports in servers(text) for port in ports}
        called = set(re.findall(r"\blocalhost:(50\d{3}|8\d{3})\b", text))
        others = {"8765"} if page.parent.name == "websocket" else set()
        assert called <= started | MAKE_SERVE | others, page


def test_no_block_leaves_the_directory():
    """The next block runs in the same terminal, so a block changes the directory only in parentheses."""
    found = {
        page.name: line
        for page in PAGES
        for block in SHELL.findall(page.read_text())
        for line in block.splitlines()
        if re.search(r"^(\$ )?(cd|pushd) |(&&|;) *(cd|pushd) ", line)
    }
    assert found == {}


def written(page: Path) -> set[str]:
    """Returns the files and directories that the blocks of a page write, as paths in the clone."""
    folder = page.parent.relative_to(ROOT) if ROOT / "examples" in page.parents else Path()
    text = page.read_text()
    names = [name for block in SHELL.findall(text) for name in WRITTEN_BY_SHELL.findall(block)]
    names += [name for block in PYTHON.findall(text) for name in WRITTEN_BY_PYTHON.findall(block)]
    return {str(folder / name.replace("$name", "client")) for name in names} - {"/dev/null"}


def test_what_the_pages_write_is_ignored():
    """`git status` shows no file that a page has made, and no file of the repository has such a name."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    files = set().union(*map(written, PAGES))
    assert len(files) > 30
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    done = subprocess.run(command, input="\n".join(files), capture_output=True, text=True, cwd=ROOT, check=False)
    assert files - set(done.stdout.splitlines()) == set()
    tracked = subprocess.run(
        ["git", "ls-files", "-ci", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert tracked.stdout == ""


def test_collisions_are_found():
    """Equal ports are found on two pages, on one page without a word about stopping, and those of `make serve`."""
    serve = "```sh\nmlflow-grpc serve -m models/iris -p {}\n```\n"
    assert faults({"a": serve.format(1), "b": serve.format(2)}) == []
    assert [fault.partition(":")[0] for fault in faults({"a": serve.format(1), "b": serve.format(1)})] == ["b"]
    assert "make serve has the port 50051" in faults({"a": "```sh\nmlflow-grpc serve -m models/iris\n```\n"})[0]
    assert len(faults({"a": serve.format("1 --http-port 8080")})) == 1
    assert len(faults({"a": serve.format(1) + serve.format("1 --requirements strict")})) == 1
    assert faults({"a": serve.format(1) + "Stop it with Ctrl-C.\n" + serve.format("1 --requirements strict")}) == []
    assert faults({"a": "```sh\nMODEL_PATH=models:/churn/3 mlflow-grpc serve\n```\n"}) == []
