"""`mlflow-grpc proto` with a lock: concurrent runs, and files that it does not write."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile import io as lock_io
from tests.process.test_lock import proto

ECHO = "mlmodel:tests.support.newer_models.Echo"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The lock written by concurrent runs, and the exit of each run."""
    folder = tmp_path_factory.mktemp("runs")
    path = folder / lock_format.FILE_NAME

    def run(name):
        return proto("-m", ECHO, "--model-name", name, "--lock", path, "-o", folder / f"{name}.proto")

    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(run, ["one", "two", "three"]))
    return path, ends


def test_concurrent_runs_all_have_their_model_in_the_lock(written):
    """No run loses the model of another, and only the requested files are left."""
    path, ends = written
    assert [code for code, _, _ in ends] == [0, 0, 0], ends
    assert sorted(lock_io.read(path).models) == ["one", "three", "two"]
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, "one.proto", "two.proto", "three.proto"}


def test_a_contract_does_not_overwrite_its_lock(written):
    """An output with the same path as the lock, or linked to it, is refused, and nothing is written."""
    path, _ = written
    before, link = path.read_text(), path.with_name("link.proto")
    link.symlink_to(path)
    for output in (path, link):
        code, _, errors = proto("-m", ECHO, "--model-name", "one", "--lock", path, "-o", output)
        assert (code, errors) == (
            2, f"Error: --output and --lock are the same file, {output}: the contract would overwrite the lock; choose another --output",
        )  # fmt: skip
    assert path.read_text() == before
    link.unlink()


def test_a_read_only_lock_is_not_written(written):
    """One line names the lock, and no contract is written with numbers that the lock does not have."""
    path, _ = written
    before, output = path.read_text(), path.with_name("four.proto")
    path.chmod(0o444)
    code, _, errors = proto("-m", ECHO, "--model-name", "four", "--lock", path, "-o", output)
    assert (code, errors) == (1, f"Error: cannot write {path}: Permission denied")
    assert (path.read_text(), output.exists()) == (before, False)
    path.chmod(0o644)
