"""Jobs that score a database or a file, run with the commands of their pages, of the crontab and of the CronJob."""

import re
import shlex
import sqlite3
from contextlib import closing
from datetime import date

import pandas as pd
import pytest

import mlflow_grpc
from tests.gallery.conftest import lines
from tests.gallery.example import EXAMPLES
from tests.support.manifests import SCHEMAS, document, faults

pytestmark = pytest.mark.slow


def predictions_in(file):
    """Returns a file of predictions as the lines that other examples print."""
    scored = pd.read_csv(file, dtype=str)
    return lines(dict(zip(scored["id"], scored["prediction"], strict=True)))


def test_etl(example, labels):
    """The job adds the model's predictions to the database, and in a second run only those of new rows."""
    etl = example("etl")
    assert etl.run(etl.commands[0]) == etl.outputs[0]
    assert etl.run(etl.commands[1]) == etl.outputs[1]
    database = sqlite3.connect(etl.folder / "flowers.db")
    with closing(database), database:
        assert {str(flower): species for flower, species in database.execute("SELECT * FROM predictions")} == labels
        database.execute("DELETE FROM predictions WHERE flower_id = 3")
    assert etl.run(etl.commands[0].splitlines()[1]) == "1 predictions added\n"


def test_crontab(example, labels):
    """The line of the crontab scores the file by the server, and writes a file with the day's name."""
    job = example("cron")
    *settings, line = [line for line in (job.folder / "crontab").read_text().splitlines() if not line.startswith("#")]
    names = [setting.split("=")[0] for setting in settings]
    assert names == ["SHELL", "PATH", "FOLDER", "MODEL_ADDRESS"]
    minute, hour, *days, command = line.split(" ", 5)
    assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, days) == (True, True, ["*"] * 3)
    # cron ends the command at a % without a backslash.
    assert not re.search(r"(?<!\\)%", command)
    job.variables["FOLDER"] = str(job.folder.parent)
    before = date.today()
    job.run(f"sh -c {shlex.quote(command)}".replace("\\%", "%"))
    written = [job.folder.parent / f"{day}.csv" for day in {before, date.today()}]
    assert [predictions_in(file) for file in written if file.exists()] == [lines(labels)]


@pytest.fixture
def cronjob():
    return document(EXAMPLES / "cron" / "cronjob.yaml")


@pytest.mark.parametrize("version", SCHEMAS)
def test_the_schema_of_the_cronjob(cronjob, version):
    """Kubernetes accepts the CronJob."""
    assert faults(cronjob, version) == []


def test_a_wrong_field_is_found(cronjob):
    """The schema of the CronJob refuses a field that it does not have."""
    cronjob["spec"]["jobTemplate"]["spec"]["backofLimit"] = 1
    assert len(faults(cronjob)) == 1


def test_the_cronjob_is_restricted(cronjob):
    """Its pod satisfies the profile restricted of the Pod Security Standards, and writes to its volumes only."""
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.gallery  # Loads MLflow, so it takes longer than the others.
@pytest.mark.timeout(600)
def test_the_command_of_the_cronjob(cronjob, example, labels, iris):
    """The command of the container loads the model and scores the file of the volume."""
    job = example("cron")
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/bin/sh", "-c"]
    (command,) = container["args"]
    assert {variable["name"] for variable in container["env"]} == {"MODEL_URI", "MLFLOW_TRACKING_URI"}
    job.variables["MODEL_URI"] = str(iris.path)
    before = date.today()
    job.run(command.replace("/flowers/", f"{job.folder.parent}/"))
    written = [job.folder.parent / f"{day}.csv" for day in {before, date.today()}]
    assert [predictions_in(file) for file in written if file.exists()] == [lines(labels)]


def test_the_image_has_the_version():
    """The image of the CronJob is that of this version."""
    (image,) = re.findall(r"image: mlflow-grpc:(\S+)", (EXAMPLES / "cron" / "cronjob.yaml").read_text())
    assert image == mlflow_grpc.__version__
