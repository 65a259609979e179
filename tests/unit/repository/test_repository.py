"""Consistency of the repository: versions, locked requirements, workflows and their targets."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow_grpc_client
import pytest
import yaml

import mlflow_grpc
from scripts import set_version
from scripts.lock_additions import additions
from tests.support.servers import ROOT

WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
LOCKED = sorted(ROOT.glob("*requirements*.txt"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copies of the changelog and of the files with the version."""
    for name in (*set_version.PLACES, "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_both_distributions_have_one_version():
    """The packages, and the labels of both images, name the same version."""
    assert set(set_version.versions().values()) == {mlflow_grpc.__version__, mlflow_grpc_client.__version__}
    assert set_version.problems(None) == []


def test_both_distributions_have_the_license():
    """The client is built from its own folder, which needs a copy of the license."""
    assert (ROOT / "client" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_version_is_set_everywhere(copy):
    """One command sets the version in all files, and changes nothing else."""
    set_version.set_version("9.8.7rc1", copy)
    assert set(set_version.versions(copy).values()) == {"9.8.7rc1"}
    set_version.set_version(mlflow_grpc.__version__, copy)
    assert all((copy / name).read_text() == (ROOT / name).read_text() for name in set_version.PLACES)


def test_a_tag_is_compared_with_the_files_and_the_changelog(copy):
    """A release needs the version of its tag, and a dated section in the changelog."""
    set_version.set_version("9.8.7", copy)
    assert set_version.problems("v9.8.7", copy) == ["CHANGELOG.md has no section '## [9.8.7] - YYYY-MM-DD'"]
    with (copy / "CHANGELOG.md").open("a") as changelog:
        changelog.write("\n## [9.8.7] - 2026-01-31\n")
    assert set_version.problems("v9.8.7", copy) == []
    assert "mlflow_grpc/__init__.py has version 9.8.7, not 9.8.8" in set_version.problems("v9.8.8", copy)


def test_unreleased_changes_become_the_section_of_a_version(copy):
    """A release leaves an empty section Unreleased, in which there is nothing to release again."""
    changelog = copy / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A\n\n## [9.8.6] - 2026-01-01\n\n- B\n")
    set_version.date_changelog("9.8.7", "2026-01-31", copy)
    expected = "# Changelog\n\n## [Unreleased]\n\n## [9.8.7] - 2026-01-31\n\n### Added\n\n- A\n\n## [9.8.6] - 2026-01-01\n\n- B\n"
    assert changelog.read_text() == expected
    for version, day, reason in (
        ("9.8.7", "2026-02-01", "has a section for 9.8.7 already"),
        ("9.8.8", "2026-02-01", "no section"),
        ("9.8", "2026-02-01", "write three numbers"),
        ("9.8.8", "31.1.2026", "Invalid isoformat"),
    ):
        with pytest.raises(ValueError, match=reason):
            set_version.date_changelog(version, day, copy)
    assert changelog.read_text() == expected


def test_the_changelog_can_be_released(copy):
    """The section Unreleased has changes, or the version has a section with a date."""
    if set_version.problems(f"v{mlflow_grpc.__version__}", copy):
        set_version.date_changelog(mlflow_grpc.__version__, "2026-01-31", copy)
    assert set_version.problems(f"v{mlflow_grpc.__version__}", copy) == []


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0-beta", ""])
def test_invalid_versions_change_nothing(copy, version):
    """A version that the index would normalise is refused."""
    with pytest.raises(ValueError, match="write three numbers"):
        set_version.set_version(version, copy)
    assert set_version.problems(None, copy) == []


def test_requirements_on_top_of_others():
    """Equal pins are omitted; a different version, platform or hash stays."""
    base = "# head\na==1 \\\n    --hash=sha256:1\n    # via x\nb==1 \\\n    --hash=sha256:2\nc==1 ; x \\\n    --hash=sha256:3\n"
    text = "# head\na==1 \\\n    --hash=sha256:1\n    # via\n    #   y\nb==1 \\\n    --hash=sha256:9\nc==1 \\\n    --hash=sha256:3\n"
    expected = "# head\n-r requirements.txt\nb==1 \\\n    --hash=sha256:9\nc==1 \\\n    --hash=sha256:3\n"
    assert additions(text, base) == expected
    assert additions(expected, base) == expected


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements-*.txt")), ids=lambda path: path.name)
def test_locked_requirements_are_not_repeated(path):
    """The files for tests and extras have only additions to requirements.txt."""
    text = path.read_text()
    assert additions(text, (ROOT / "requirements.txt").read_text()) == text


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.name)
def test_locked_requirements_name_no_server(path):
    """The files name no index, so that the user's own configuration counts, and each package has a hash."""
    text = path.read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)
    packages = re.findall(r"^[a-z0-9][^\n]*==", text, re.MULTILINE)
    assert packages
    assert len(re.findall(r"^[a-z0-9][^\n]*\\\n +--hash=sha256:", text, re.MULTILINE)) == len(packages)


def test_the_hook_has_the_locked_version_of_ruff():
    """The hook formats a commit like `make check`."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (ruff,) = (repo["rev"] for repo in hooks["repos"] if repo["repo"].endswith("/ruff-pre-commit"))
    assert f"\nruff=={ruff.removeprefix('v')} \\\n" in (ROOT / "requirements-dev.txt").read_text()


def test_make_targets_exist():
    """The targets in workflows and CONTRIBUTING.md exist."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    pages = [*WORKFLOWS, ROOT / "CONTRIBUTING.md", ROOT / ".github" / "pull_request_template.md"]
    for page in pages:
        commands = re.findall(r"(?:run: |`|^)make ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", page.read_text(), re.MULTILINE)
        assert {target for command in commands for target in command.split()} <= targets, page.name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_jobs_have_few_rights(path):
    """Actions are pinned by hash, because tags can be moved. A job with more than read permissions lists them."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"], name
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_is_defined_once(path):
    """No mapping has a key twice: GitHub refuses such a workflow, and PyYAML would keep the last value."""
    nodes: list[yaml.Node | None] = [yaml.compose(path.read_text())]
    while nodes:
        match nodes.pop():
            case yaml.SequenceNode(value=items):
                nodes += items
            case yaml.MappingNode(value=pairs):
                keys = [key.value for key, _ in pairs]
                assert sorted(set(keys)) == sorted(keys)
                nodes += [value for _, value in pairs]


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.parametrize("is_selected", [True, False])
def test_browser_tests_without_a_browser(tmp_path, is_selected):
    """`make browser` fails without Chromium and says what to install. A run that leaves these tests out does not."""
    selection = ["-m", "browser"] if is_selected else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *selection, "tests/browser/test_token.py"],
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == (1 if is_selected else pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout
    assert ("need Chromium; on Debian: apt-get install chromium" in done.stdout + done.stderr) == is_selected
