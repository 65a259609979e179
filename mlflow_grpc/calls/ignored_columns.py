"""The trailer `mlflow-ignored-columns`, which names the columns and params of a call that the model ignored.

Its value is a list of names, separated by commas. Characters other than printable ASCII are percent-encoded as UTF-8,
as in gRPC's own `grpc-message`. So are the space, the percent sign, the comma and the semicolon, so that no name can
end the value or look like two names. The number of names that do not fit follows a semicolon: `citty,regoin;more=3`.

Rule of this module: the names come from the caller and go back to that caller only. Their number and size are bounded.
"""

from collections.abc import Iterable
from urllib.parse import quote

from _mlflow_grpc_protocol.metadata import IGNORED_KEY

MAX_BYTES, MAX_BYTES_OF_ERROR = 1000, 400
"""Maximum size of the trailer's value in bytes; it is smaller next to an error's details."""

MAX_NAME_CHARACTERS = 100
"""Maximum length of a name; longer names are cut."""

MAX_NAMES = 1000
"""Maximum number of names that a call keeps, because a stream may have any number."""

_AS_THEY_ARE = "!\"#$&'()*+-./:<=>?@[\\]^_`{|}~"


class IgnoredColumns:
    """Names in one call's requests that the model ignores; added by model threads, read by the event loop."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, names: Iterable[str]) -> None:
        """Adds names; repeated names count once."""
        for name in names:
            if len(self._names) < MAX_NAMES:
                self._names[name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}…"] = None

    def __len__(self) -> int:
        return len(self._names)

    def trailers(self, max_bytes: int = MAX_BYTES) -> tuple[tuple[str, str], ...]:
        """Returns the trailer; nothing if there are no names.

        Args:
            max_bytes: Maximum size of its value in bytes.

        """
        if not self._names:
            return ()
        names = list(self._names)
        encoded: list[str] = []
        size = 0
        for name in names:
            # JSON can spell lone surrogates, UTF-8 cannot.
            text = quote(name or '""', safe=_AS_THEY_ARE, errors="replace")
            size += len(text) + 1
            if size > max_bytes:
                break
            encoded.append(text)
        count = f";more={len(names) - len(encoded)}" if len(encoded) < len(names) else ""
        return ((IGNORED_KEY, ",".join(encoded) + count),)
