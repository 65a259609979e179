"""The file of tokens (`--auth-tokens`): names of callers, and SHA-256 digests of their tokens.

    # a comment
    batch 1375791a348a872e6a48a1e4a1388296e8e84747a0cfefcc9296b177584dd24e

Rule of this module: a token is never stored or shown. A digest of a random token cannot be turned back, so it needs no
slow hash; `mlflow-grpc token` makes such tokens.
"""

import hashlib
import re
from pathlib import Path

from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.polling import LOOK_INTERVAL_S, SETTLE_S

logger = get_logger(__name__)

MAX_NAME_CHARACTERS = 256

FORM = "NAME SHA256, as `mlflow-grpc token NAME` writes it"

_LINE = re.compile(r"(\S+)\s+([0-9A-Fa-f]{64})")


def digest_of(token: str) -> bytes:
    """Returns the SHA-256 of a token, 32 bytes."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def is_name(text: str) -> bool:
    """Returns True if a text can be the name of a caller: printable, without spaces, and of a limited length."""
    return 0 < len(text) <= MAX_NAME_CHARACTERS and text.isprintable() and " " not in text and not text.startswith("#")


def line_of(name: str, token: str) -> str:
    """Returns the line of a token."""
    return f"{name} {digest_of(token).hex()}"


def parse(data: bytes) -> dict[bytes, str]:
    """Returns the names of callers by the digests of their tokens.

    Raises:
        ValueError: The bytes are not such a file. The message has the number of the line, and nothing of its text,
            because a token may be there by mistake.

    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    names: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        match = _LINE.fullmatch(content)
        if match is None or not is_name(match[1]):
            raise ValueError(f"line {number} is not in the form {FORM}")
        digest = bytes.fromhex(match[2])
        if names.setdefault(digest, match[1]) != match[1]:
            raise ValueError(f"line {number} has the token of another name; give each caller its own")
    if not names:
        raise ValueError(f"it has no tokens; a line has the form {FORM}")
    return names


class TokenFile:
    """The tokens of a file that may change while the server runs."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Args:
            path: The file.

        Raises:
            StartError: It cannot be read, or is not a file of tokens.

        """
        self._path = path
        try:
            self._content: bytes | None = path.read_bytes()  # As it was judged last.
            self._names = parse(self._content)
        except OSError as error:
            raise StartError(f"--auth-tokens {path}: cannot read it: {error.strerror}") from error
        except ValueError as error:
            raise StartError(f"--auth-tokens {path}: {error}") from error
        self._seen: bytes | None = self._content  # As the last look found it.

    def caller(self, digest: bytes) -> str | None:
        """Returns the name of the caller with a token of this digest; None if there is none.

        The time of the lookup reveals at most a part of a digest, from which no token follows.
        """
        return self._names.get(digest)

    def look(self) -> float:
        """Reads the file again, and takes its tokens if it has changed and is valid; called in one thread.

        A change counts if the next look finds it too. The first lines of a file that is being written would be a valid
        file, and lock out the callers of the others.

        Returns:
            The time until the next look, in seconds.

        """
        try:
            content: bytes | None = self._path.read_bytes()
            problem = ""
        except OSError as error:
            content, problem = None, f"it cannot be read: {error.strerror}"
        is_settled, self._seen = content == self._seen, content
        if content == self._content:
            return LOOK_INTERVAL_S
        if not is_settled:
            return SETTLE_S
        self._content = content
        if content is not None:
            try:
                names = parse(content)
            except ValueError as error:
                problem = str(error)
            else:
                self._names = names
                callers = len(set(names.values()))
                logger.info("%s has changed: %d tokens of %d callers", self._path, len(names), callers)
                return LOOK_INTERVAL_S
        logger.error(
            "the previous tokens stay valid, because %s has changed and is not usable: %s", self._path, problem
        )
        return LOOK_INTERVAL_S
