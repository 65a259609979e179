"""The file of tokens: its form, and what a changed file does."""

import logging

import pytest

from mlflow_grpc.access.tokens import TokenFile, digest_of, line_of, parse
from mlflow_grpc.errors import StartError
from mlflow_grpc.polling import LOOK_INTERVAL_S, SETTLE_S
from tests.support.access import TOKENS, lines_of

OTHER = {"batch": "another-token-of-batch"}


def test_a_file_has_comments_and_several_tokens_of_a_name():
    """A name may have several tokens, so that they can be exchanged; comments, blank lines and a BOM do not count."""
    text = f"\ufeff# callers\r\n\r\n  {lines_of(TOKENS)}{lines_of(OTHER)}"
    assert parse(text.encode()) == {
        digest_of(TOKENS["batch"]): "batch",
        digest_of(TOKENS["web"]): "web",
        digest_of(OTHER["batch"]): "batch",
    }
    assert line_of("web", TOKENS["web"]) + "\n" == lines_of({"web": TOKENS["web"]})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it has no tokens"),
        ("# nothing\n", "it has no tokens"),
        ("web secret-in-the-file\n", "line 1 is not in the form NAME SHA256"),
        (f"{lines_of(TOKENS)}web\n", "line 3 is not in the form"),
        (f"{lines_of(TOKENS)}other {digest_of(TOKENS['web']).hex()}\n", "line 3 has the token of another name"),
        (f"{'n' * 257} {'0' * 64}", "line 1 is not in the form"),
        ("\udcff", "it is not UTF-8"),
    ],
)
def test_another_text_is_refused(tmp_path, text, problem):
    """An unusable file stops the start, with the line and nothing of its text."""
    path = tmp_path / "tokens"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StartError, match=problem) as caught:
        TokenFile(path)
    assert "secret-in-the-file" not in str(caught.value)


def test_a_changed_file_is_taken_if_it_is_usable(tmp_path, caplog):
    """A new token is valid and an old one is not after a look; a broken file, or none, changes nothing but the log."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    tokens = TokenFile(path)

    def callers():
        for _ in range(2):  # A change counts once it has been found twice.
            tokens.look()
        return [tokens.caller(digest_of(token)) for token in (TOKENS["web"], OTHER["batch"])]

    assert callers() == ["web", None]
    path.write_text(lines_of(OTHER))
    assert callers() == [None, "batch"]
    lines = len(caplog.records)
    for break_file in (lambda: path.write_text("web secret"), path.unlink):
        break_file()
        assert callers() == callers() == [None, "batch"]
        lines += 1
        assert len(caplog.records) == lines
        assert caplog.records[-1].levelno == logging.ERROR
        assert "the previous tokens stay valid" in caplog.records[-1].getMessage()
    path.write_text(lines_of(TOKENS))
    assert callers() == ["web", None]
    assert "secret" not in caplog.text


def test_a_file_that_is_being_written_does_not_count(tmp_path, caplog):
    """The first lines of a file are a valid file, and do not lock out the callers of the others while it is written."""
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    tokens = TokenFile(path)
    *lines, last = lines_of({**TOKENS, "third": "token-of-the-third"}).splitlines(keepends=True)
    for half in ("", "".join(lines[:1]), "".join(lines) + last[:10]):
        path.write_text(half)
        assert tokens.look() == SETTLE_S
        assert tokens.caller(digest_of(TOKENS["web"])) == "web"
    path.write_text("".join((*lines, last)))
    assert [tokens.look(), tokens.look()] == [SETTLE_S, LOOK_INTERVAL_S]
    assert tokens.caller(digest_of("token-of-the-third")) == "third"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_file_that_another_one_replaces(tmp_path, caplog):
    """A symbolic link may lead to other tokens; one that leads nowhere, or to a directory, leaves the tokens before."""
    first, second, path = tmp_path / "first", tmp_path / "second", tmp_path / "tokens"
    first.write_text(lines_of(TOKENS))
    second.write_text(lines_of(OTHER))
    path.symlink_to(first)
    tokens = TokenFile(path)

    def lead_to(target):
        new = tmp_path / "new"
        new.symlink_to(target)
        new.replace(path)
        for _ in range(3):
            tokens.look()
        return [tokens.caller(digest_of(token)) for token in (TOKENS["web"], OTHER["batch"])]

    assert lead_to(second) == [None, "batch"]
    assert caplog.records == []
    for number, target in enumerate((tmp_path / "missing", path, tmp_path), 1):
        assert lead_to(target) == [None, "batch"]
        assert "it cannot be read" in caplog.records[-1].getMessage()
        assert len(caplog.records) == number
        assert lead_to(second) == [None, "batch"]
    assert lead_to(first) == ["web", None]
