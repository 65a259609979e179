"""Plain English in all texts for people, without phrases that are hard to read."""

import ast
import io
import re
import tokenize
from pathlib import Path

import yaml

from tests.support.servers import ROOT

BANNED = {
    "(tell|tells|told) of": "reports, describes",
    "(is|are|was|were|be|been) (asked|told)": "is requested, is notified",
    "(stand|stands|stood) in": "is in",
    r"(?<!there\s)(is|are|was|were) (?-i:none)": "is not a",
    "to be had": "available",
    "no good": "invalid",
    "for ever": "without limit, until cancelled, permanently",
    "anew": "again",
    "at the most": "at most",
    "but for": "except",
    "so many": "the number itself",
    "one way or the other": "nothing",
}
"""Phrases as regular expressions, and what to write instead."""
PATTERNS = {
    re.compile(rf"\b{phrase}\b".replace(" ", r"\s+"), re.IGNORECASE): instead for phrase, instead in BANNED.items()
}
ANY = re.compile("|".join(pattern.pattern for pattern in PATTERNS), re.IGNORECASE)

QUICK = re.compile(ANY.pattern.replace(r"\s+", r"(?:\W|\\n|[fr]+(?=\"))+"), re.IGNORECASE)
"""Finds the phrases in source code, and more: their words may be in two string literals or lines of a comment."""

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("examples/**/*.md")]
PAGES += [ROOT / "client" / "README.md", ROOT / "benchmarks" / "README.md"]
HASH_COMMENTS = [ROOT / "Makefile", ROOT / "Dockerfile", ROOT / "mlflow_grpc" / "environments" / "Dockerfile"]
HASH_COMMENTS += [ROOT / "pyproject.toml", ROOT / "client" / "pyproject.toml", ROOT / ".pre-commit-config.yaml"]
HASH_COMMENTS += [*ROOT.glob(".github/**/*.yml")]
MANIFESTS = [*ROOT.glob("deploy/**/*.yaml"), *ROOT.glob("examples/**/*.yaml"), *ROOT.glob("deploy/**/*.yml")]
SCRIPTS = [path for suffix in ("js", "html") for path in sorted(ROOT.glob(f"mlflow_grpc/http/page/*.{suffix}"))]
SLASH_COMMENTS = [ROOT / "mlflow.proto", *ROOT.glob("mlflow_grpc/protos/**/*.proto")]
FOLDERS = ("mlflow_grpc", "client", "tests", "scripts", "benchmarks", "models", "examples")
PYTHON = [ROOT / "server.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]
PYTHON = [path for path in PYTHON if path != Path(__file__)]
"""All modules except this one, which has the phrases themselves."""

Prose = list[tuple[int, str]]
"""Texts with the number of their first line."""


def without_code(text: str) -> str:
    """Returns the text with blanks for code blocks and inline code, and with its line breaks."""
    return re.sub(r"^ *```.*?^ *```|`[^`]+`", lambda code: re.sub(r"[^\n]", "`", code[0]), text, flags=re.M | re.S)


def of_page(text: str) -> Prose:
    """Returns a Markdown page as one text."""
    return [(1, text)]


def of_comments(text: str, mark: str) -> Prose:
    """Returns the comments of a file as one text: a Makefile, a Dockerfile, YAML, TOML or a .proto file."""
    blank = [line.partition(mark)[2] if mark in line else "" for line in text.split("\n")]
    return [(1, "\n".join(blank))]


def of_manifest(text: str) -> Prose:
    """Returns the comments and the strings of a YAML file, such as the summaries of alerts."""
    strings: Prose = []
    nodes: list[yaml.Node | None] = list(yaml.compose_all(text, yaml.SafeLoader))
    while nodes:
        match nodes.pop():
            case yaml.ScalarNode(tag="tag:yaml.org,2002:str") as scalar:
                strings.append((scalar.start_mark.line + 1, scalar.value))
            case yaml.SequenceNode() as sequence:
                nodes += sequence.value
            case yaml.MappingNode() as mapping:
                nodes += [node for pair in mapping.value for node in pair]
    return [*strings, *of_comments(text, "#")]


def of_script(text: str) -> Prose:
    """Returns a script or an HTML page as one text; template literals in backticks are messages, not code."""
    return [(1, text.replace("`", '"'))]


def of_python(text: str) -> Prose:
    """Returns docstrings, messages (string literals, and the fixed parts of f-strings) and comments of a module."""
    strings = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    lines = [comments.get(number, "") for number in range(1, text.count("\n") + 2)]
    return [*strings, (1, "\n".join(lines))]


def prose_of(path: Path) -> Prose:
    """Returns the texts for people in a file."""
    text = path.read_text()
    if not QUICK.search(text):  # Parsing all modules takes several seconds.
        return []
    if path.suffix == ".md":
        return of_page(text)
    if path.suffix == ".py":
        return of_python(text)
    if path in MANIFESTS:
        return of_manifest(text)
    if path in SCRIPTS:
        return of_script(text)
    return of_comments(text, "//" if path in SLASH_COMMENTS else "#")


def findings(prose: Prose) -> list[str]:
    """Returns a line for each banned phrase."""
    faults = []
    for start, text in prose:
        if not ANY.search(text):
            continue
        plain = without_code(text)
        for pattern, instead in PATTERNS.items():
            for match in pattern.finditer(plain):
                line = start + plain.count("\n", 0, match.start())
                faults.append(f"line {line}: {' '.join(match[0].split())!r}; write {instead}")
    return faults


def test_no_banned_phrase():
    """Texts use the terms of the field; the failure has file, line, phrase and replacement.

    One test reads all files, because six hundred tests take longer than the search.
    """
    files = [*PAGES, *HASH_COMMENTS, *MANIFESTS, *SCRIPTS, *SLASH_COMMENTS, *PYTHON]
    found = {str(path.relative_to(ROOT)): findings(prose_of(path)) for path in files}
    assert {path: faults for path, faults in found.items() if faults} == {}


def test_phrases_are_found():
    """Phrases are found in prose, across line breaks, in messages and comments, but not in code or as Python's None."""
    assert findings(of_page("one\nAs told\n  of `anew`.")) == ["line 2: 'told of'; write reports, describes"]
    assert findings(of_page("```\nanew\n```\n  ```sh\n  anew\n  ```\nThere is none. It is None.")) == []
    code = 'def f(x):\n    """Tells of x."""\n    raise ValueError(f"{x} is none, "\n        "no good")  # For ever.\n'
    assert [finding.split(";")[0] for finding in findings(of_python(code))] == [
        "line 2: 'Tells of'", "line 3: 'is none'", "line 3: 'no good'", "line 4: 'For ever'",
    ]  # fmt: skip
    assert QUICK.search(code)
    assert QUICK.search('f("for "\n  f"ever")')
    assert QUICK.search("# for\n# ever")
    assert findings(of_comments("a: 1\n# stands in\n", "#")) == ["line 2: 'stands in'; write is in"]
    alert = "groups:\n  - summary: to be had\n    count: 3  # anew\n"
    assert findings(of_manifest(alert)) == ["line 2: 'to be had'; write available", "line 3: 'anew'; write again"]
    assert findings(of_script("// x\nshow(`${name} is none`);\n")) == ["line 2: 'is none'; write is not a"]
