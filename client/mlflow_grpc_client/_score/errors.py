"""Errors that end a run of `score`. Their messages say what is wrong and what to do.

Rule of this module: it imports nothing, so that the command can report that the extra is missing.
"""


class ScoreError(Exception):
    """A run ends without its output. Its rows so far are kept for --resume. Exit code 1."""


class InvalidUsage(ScoreError):
    """Arguments or files do not fit together, so that nothing was begun. Exit code 2."""


class Stopped(Exception):
    """The run has ended, so that a thread gives up its chunk."""
