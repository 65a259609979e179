"""Names of pydantic fields in the payload."""

from collections.abc import Iterator

import pydantic


def aliases(alias: str | pydantic.AliasPath | pydantic.AliasChoices | None) -> Iterator[str]:
    """Yields the top-level names that pydantic looks for a field under.

    Args:
        alias: The field's `validation_alias`.

    """
    if isinstance(alias, str):
        yield alias
    elif isinstance(alias, pydantic.AliasPath):
        yield str(alias.path[0])
    elif alias is not None:
        for choice in alias.choices:
            yield from aliases(choice)
