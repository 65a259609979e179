"""Runs the client's command in this process: the same `main`, without the half second that a new process takes."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mlflow_grpc_client._cli.command import main

Outcome = tuple[int, str, str]
"""Exit code, stdout and stderr."""


def predict_command(*arguments: Any, stdin: bytes = b"", cwd: Path | None = None) -> Outcome:
    """Runs `mlflow-grpc-predict`.

    The outcome does not include text that gRPC's C core writes to file descriptor 2.
    """
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        _stdin(stdin),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        contextlib.chdir(cwd or Path.cwd()),
        # The command leaves file descriptor 2 alone, which belongs to the tests.
        mock.patch.dict(os.environ, GRPC_VERBOSITY="NONE"),
        pytest.raises(SystemExit) as ended,
    ):
        main([os.fsdecode(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code, out.buffer.getvalue().decode(), error.buffer.getvalue().decode()


@contextlib.contextmanager
def _stdin(data: bytes) -> Iterator[None]:
    """Replaces file descriptor 0 and `sys.stdin` by these bytes."""
    kept = os.dup(0)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        os.dup2(file.fileno(), 0)
    try:
        with os.fdopen(os.dup(0), encoding="utf-8") as stream, mock.patch.object(sys, "stdin", stream):
            yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
