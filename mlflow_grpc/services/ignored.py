"""The trailer that names what the model ignored of a call: `mlflow-ignored-columns`.

Its value is a list of names with commas between them. In a name everything but printable ASCII, and of that the space,
the percent sign, the comma and the semicolon, is percent-encoded as UTF-8, as in gRPC's own `grpc-message`: no name can
end the value or stand for two. What there is no room for is counted behind a semicolon: `citty,regoin;more=3`.

Rule of this module: the names are the caller's own, and go nowhere else; what it keeps of a call is bounded.
"""

from collections.abc import Iterable
from urllib.parse import quote

KEY = "mlflow-ignored-columns"

MOST_BYTES, MOST_BYTES_OF_ERROR = 1000, 400
"""The longest value of the trailer; beside an error's details there is less room."""

MOST_CHARACTERS = 100
"""How much of a name is kept."""

MOST_NAMES = 1000
"""How many names of a call are kept; a stream may have any number."""

_AS_THEY_ARE = "!\"#$&'()*+-./:<=>?@[\\]^_`{|}~"


class IgnoredColumns:
    """The names of one call, each once; added by threads of the model, and read by the event loop."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, names: Iterable[str]) -> None:
        """Takes note of names."""
        for name in names:
            if len(self._names) < MOST_NAMES:
                self._names[name if len(name) <= MOST_CHARACTERS else f"{name[:MOST_CHARACTERS]}…"] = None

    def __len__(self) -> int:
        return len(self._names)

    def trailers(self, most_bytes: int = MOST_BYTES) -> tuple[tuple[str, str], ...]:
        """The trailer, none if there are no names.

        Args:
            most_bytes: What the names may come to.

        """
        if not self._names:
            return ()
        names = list(self._names)
        encoded: list[str] = []
        size = 0
        for name in names:
            text = quote(
                name or '""', safe=_AS_THEY_ARE, errors="replace"
            )  # JSON can spell lone surrogates, UTF-8 cannot.
            size += len(text) + 1
            if size > most_bytes:
                break
            encoded.append(text)
        more = f";more={len(names) - len(encoded)}" if len(encoded) < len(names) else ""
        return ((KEY, ",".join(encoded) + more),)
