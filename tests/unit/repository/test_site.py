"""The pages of the documentation: what they begin with, and the reference pages, which are written from their sources."""

import ast
import re
from collections.abc import Iterable

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto

from mlflow_grpc.cli import main
from mlflow_grpc.errors import NotReady, Overloaded
from mlflow_grpc.telemetry.models import Refusal
from scripts import badges, command_line_page, generate_protos, metrics_table, protos_page
from tests.support.servers import ROOT

PAGES = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/site/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += [ROOT / folder / "README.md" for folder in ("client", "benchmarks", "tests")]
METRICS = (ROOT / "docs" / "metrics.md").read_text()
LOGGING = ("calls/log.py", "calls/open_calls.py", "calls/refusals.py", "logs/format.py", "logs/handler.py")
"""Modules that write the keys of log lines."""
LOG_LINES = (ROOT / "docs" / "log-lines.md").read_text()


def first_paragraphs(text: str) -> str:
    """Returns what a page says before its first heading, table, code or list."""
    return re.split(r"^(?:#|\||```|- )", text.partition("\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_pages_say_what_one_can_do_after_them():
    """The text before a page's first section says what its reader can do or knows afterwards."""
    written = {"command-line.md": command_line_page.page(), **protos_page.pages()}
    texts = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES} | written
    promise = re.compile(r"\bAfter\s+this\s+page\b")
    assert [name for name, text in texts.items() if not promise.search(first_paragraphs(text))] == []


def test_badges_are_fresh():
    """The badges have what pyproject.toml says, and so do the texts beside them in README.md."""
    readme = (ROOT / "README.md").read_text()
    for path, text in badges.contents().items():
        assert path.read_text() == text, "run `python scripts/badges.py`"
    for name, value in badges.facts().items():
        badge = re.search(rf"!\[(.*?)\]\(docs/images/badge-{name}\.svg\)", readme)
        assert badge
        assert (badge[1].lower().startswith(name), badge[1].endswith(value)) == (True, True)


def test_the_table_of_metrics_is_complete():
    """docs/metrics.md has a row for each metric of the server's registry, and no others."""
    rows = re.findall(r"^\| `[a-z_]+` \| (?:counter|gauge|histogram|info) \|.*$", METRICS, re.MULTILINE)
    assert rows == metrics_table.rows(), "run `python scripts/metrics_table.py` and paste it there"


def test_the_reasons_of_refusals_are_those_of_the_log():
    """docs/metrics.md has each reason of the metric once, and the reason and the text of the error for it."""
    table = METRICS.partition("## Reasons of refusals")[2]
    rows = re.findall(r"^\| `(\w+)` \| .*? \| `([A-Z_]+)`: (.*?) \| .* \|$", table, re.MULTILINE)
    assert [row[0] for row in rows] == [refusal.value for refusal in Refusal]
    tree = ast.parse((ROOT / "mlflow_grpc" / "engine" / "admission.py").read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for name, reason, text in rows:
        assert [written for written in texts if written.startswith(text)], name
        assert reason == (NotReady if name in ("loading", "draining") else Overloaded).reason


def test_metrics_that_pages_name_exist():
    """Each metric that a page, an alert or the dashboard names is in the registry."""
    families = [family.name for family in metrics_table.registry().families]
    files = [*ROOT.glob("docs/*.md"), *ROOT.glob("deploy/prometheus/*.yaml"), *ROOT.glob("deploy/grafana/*.json")]
    names = {name for file in files for name in re.findall(r"\b(?:grpc_server|process)_[a-z_]+\b", file.read_text())}
    suffix = re.compile(r"_(?:total|bucket|sum|count|info)$")
    assert names
    assert {name for name in names if suffix.sub("", name) not in families and not name.endswith("_")} == set()


def test_the_keys_of_log_lines_are_complete():
    """docs/log-lines.md has each key that the lines of calls and of all records get, and no others."""
    keys = {key for path in LOGGING for key in written_keys(path)}
    shown = {
        key
        for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", LOG_LINES, re.MULTILINE)
        for key in re.findall(r"\w+", row)
    }
    in_prose = {"place", "lines"}
    assert shown == keys - in_prose
    assert all(f"`{key}`" in LOG_LINES for key in in_prose)


def written_keys(path: str) -> set[str]:
    """Returns the constant keys of dicts that a module makes or sets."""
    tree = ast.parse((ROOT / "mlflow_grpc" / path).read_text())
    keys = {key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    keys |= {node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def test_the_command_line_page_has_every_command():
    """Each command of the server and both forms of the client's have a section with their help."""
    page = command_line_page.page()
    sections = re.findall(r"^## (.*)$", page, re.MULTILINE)
    expected = ["mlflow-grpc", *(f"mlflow-grpc {name}" for name in sorted(main.commands))]
    assert sections == [*expected, "mlflow-grpc-predict", "mlflow-grpc-predict score"]
    for command in main.commands.values():
        for option in command.params:
            assert option.name == "arguments" or all(spelling in page for spelling in option.opts), option.name
    assert page.count("--resume") >= 2  # Of both commands called score.


@pytest.mark.parametrize("source", protos_page.paths())
def test_the_pages_of_protos_have_every_comment(source):
    """A page has each comment of its .proto file in its tables and texts, besides the source."""
    path = protos_page.paths()[source]
    page, _, listing = protos_page.pages()[path].partition("## Source")
    assert (ROOT / source).read_text().rstrip() in listing
    plain = re.sub(r"\s+", " ", page.replace("\\", "").replace("<br>", " "))
    comments = re.findall(r"^ *// ?(.+)$", (ROOT / source).read_text(), re.MULTILINE)
    of_options = ("Names of the generated code in other languages. The wire does not depend on them.",)
    assert comments
    assert [line for line in comments if line not in of_options and line.strip().replace("\\", "") not in plain] == []


def test_the_pages_of_protos_have_every_declaration():
    """Each service, RPC, message, field and value is on the page of its file."""
    files = [*generate_protos.compile_files(generate_protos.SOURCES)]
    files += generate_protos.compile_files(generate_protos.OPEN_INFERENCE_SOURCES)
    pages = protos_page.pages()
    for file in files:
        page = pages[protos_page.page_of(file.name)].partition("## Source")[0]
        for service in file.service:
            assert f"## Service {service.name}\n" in page
            assert all(f"| `{rpc.name}` |" in page for rpc in service.method)
        for message in messages(file.message_type):
            assert re.search(rf"^## (?:\w+\.)*{message.name}$", page, re.MULTILINE)
            for field in message.field:
                assert re.search(rf"^\| {field.number} \| `{field.name}`", page, re.MULTILINE)


def messages(declared: Iterable[DescriptorProto]) -> list[DescriptorProto]:
    """Returns messages and those within them, without the entries of maps."""
    listed: list[DescriptorProto] = []
    for message in declared:
        if not message.options.map_entry:
            listed += [message, *messages(message.nested_type)]
    return listed
