"""Names for protobuf out of any words: identifiers, each given once in its scope.

Rule of this module: the same words in the same order get the same names, since clients are compiled against them.
"""

import keyword
import re


class Scope:
    """Gives out identifiers, none of them twice."""

    def __init__(self, *taken: str) -> None:
        self._taken = {_key(name) for name in taken}

    def name(self, words: str, otherwise: str) -> str:
        """An identifier for some words; `otherwise` where nothing of them is left.

        What is an identifier already is kept as it is. A second one for the same words gets a number.
        """
        made = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_") if not is_identifier(words) else words
        if not made[:1].isalpha():
            made = f"{otherwise}_{made}" if made else otherwise
        if keyword.iskeyword(made):
            made = f"{made}_field"
        candidate, number = made, 2
        while _key(candidate) in self._taken:
            candidate, number = f"{made}_{number}", number + 1
        self._taken.add(_key(candidate))
        return candidate


def is_identifier(words: str) -> bool:
    """Whether protobuf takes some words for a name as they are, and generated Python code can spell it."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", words)) and not keyword.iskeyword(words)


def _key(name: str) -> str:
    """What generated code makes of a name in the languages that drop underscores and case (JSON names, Java, Go)."""
    return name.replace("_", "").lower()
