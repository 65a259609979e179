"""Invalid requirements files, and their errors."""

import pytest

from mlflow_grpc.distribution import install_source
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc import requirements
from mlflow_grpc.hosting.pyfunc.requirements_files import lines_of, requirements_of

FAULTS = {
    "-r nothere.txt\nnumpy\n": r"requirements.txt, line 1, names .*/nothere.txt: No such file or directory",
    "numpy\n-c nothere.txt # why\n": r"requirements.txt, line 2, names .*/nothere.txt: No such file or directory",
    "numpy\n-r requirements.txt\n": r"requirements.txt, line 2, includes .*/requirements.txt, which in turn includes it",
    "-r around.txt\n": r"around.txt, line 1, includes .*/requirements.txt, which in turn includes it",
}


@pytest.mark.parametrize("text", FAULTS)
def test_unreadable_files_are_reported_with_the_line(tmp_path, text):
    """A missing file and one that includes itself are reported with file and line, in requirements.txt and
    python_env.yaml."""
    (tmp_path / "requirements.txt").write_text(text)
    (tmp_path / "around.txt").write_text("-r requirements.txt\n")
    for read in (
        lambda: requirements.unmet_requirements(tmp_path),
        lambda: requirements_of(["-r requirements.txt"], tmp_path),
        lambda: lines_of(["-r requirements.txt"], tmp_path),
    ):
        with pytest.raises(StartError, match=FAULTS[text]):
            read()


def test_package_names_are_normalised(tmp_path):
    """mlflow_skinny is the same as mlflow-skinny, whose version is not checked."""
    (tmp_path / "requirements.txt").write_text("mlflow_skinny==1\nMLflow-Tracing==1\nnot_there==1\n")
    assert [item.requirement for item in requirements.unmet_requirements(tmp_path)[0]] == ["not_there==1"]


@pytest.mark.parametrize(
    ("text", "with_file"),
    [
        ("--find-links wheels\nnot-there==1\n", True),
        ("not-there @ https://${TOKEN}@example.com/not-there-1.whl\n", True),
        ("-c constraints.txt\n-e ./own\nnot-there==1 # -x\n", False),
    ],
)
def test_options_and_variables_make_pip_read_the_file(tmp_path, text, with_file):
    """The advice names the file if single requirements would not be found."""
    (tmp_path / "requirements.txt").write_text(text)
    (tmp_path / "constraints.txt").write_text("numpy\n")
    command = requirements.install_command(requirements.unmet_requirements(tmp_path)[0], tmp_path)
    expected = f"-r {tmp_path}/requirements.txt" if with_file else "not-there==1"
    assert command.endswith(f"{install_source()} {expected}")


def test_secrets_of_requirements_are_not_shown():
    """A StartError contains no password or token, whatever its source is."""
    shown = str(StartError("foo @ https://user:secr@et@x/foo.whl, git+https://token@x/r.git?sig=abc, ssh://git@x/r"))
    assert shown == "foo @ https://user:***@x/foo.whl, git+https://***@x/r.git?sig=***, ssh://git@x/r"
