"""Faults of records, in pydantic's terms, as rest-model-service reports them.

Rule of this module: it imports no schema library, which would slow down the start of every server.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault of a record."""

    loc: tuple[int | str, ...]
    """Path to the value in the record; empty for the record itself."""
    error_type: str
    """Type of the error, such as `missing`."""
    message: str


class RestRecordRefused(Exception):
    """A record does not fit the input schema."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("The record does not fit the model's input schema.")
        self.faults = faults
