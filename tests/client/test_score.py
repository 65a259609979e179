"""`mlflow-grpc-predict score`: formats, types, columns and files. The expected predictions are those of MLflow."""

import gzip
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import fsspec
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _mlflow_grpc_protocol.install_sources import CLIENT, install_argument
from mlflow.models import ModelSignature

from tests.support import scored
from tests.support.commands import predict_command
from tests.support.score_files import Model, assert_same, read, served, write

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Iterator[Any]:
    """A function that serves a model during the tests of this file, once."""
    running: dict[str, Model] = {}
    with ExitStack() as stack:

        def get(name: str) -> Model:
            if name not in running:
                model, signature = {
                    "orders": (scored.Orders(), scored.SIGNATURE),
                    "untyped": (scored.Untyped(), None),
                    "summary": (scored.Summary(), ModelSignature(scored.SIGNATURE.inputs)),
                }[name]
                path = tmp_path_factory.mktemp("scored") / name
                running[name] = stack.enter_context(served(model, path, signature))
            return running[name]

        yield get


@pytest.fixture
def orders(models) -> Any:
    return models("orders")


SOURCES = ["in.parquet", "in.csv", "in.jsonl", "in.arrow", "in.arrows"]
OUTPUTS = ["out.parquet", "out.csv", "out.jsonl", "out.arrow"]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        pytest.param(*pair, marks=[] if (number + number // len(OUTPUTS)) % len(OUTPUTS) == 0 else pytest.mark.deep)
        for number, pair in enumerate(itertools.product(SOURCES, OUTPUTS))
    ],
)
def test_formats(orders, tmp_path, source, output):
    """Rows of any format are scored in their order, in several calls at a time, and written in any format, with every
    digit of integers above 2**53 and of floats. Columns are kept beside the predictions."""
    frame = scored.orders(1_000)
    if source == "in.jsonl":  # pandas writes 15 digits.
        frame["price"], frame["discount"] = frame["price"].round(6), frame["discount"].round(6)
    path = write(frame, tmp_path / source)
    code, error = orders.score(path, "-o", tmp_path / output, "--rows", 90, "--in-flight", 4, "--keep", "id,city,name")
    assert (code, error.splitlines()[-1]) == (0, f"{tmp_path / output} has 1,000 rows")
    scored_rows = read(tmp_path / output)
    assert list(scored_rows) == ["id", "city", "name", "total", "label", "is_large"]
    scored_rows["id"] = scored_rows["id"].astype(int)  # Columns of CSV are kept as texts.
    expected = pd.concat([frame[["id", "city", "name"]], orders.predict(frame[scored.INPUTS])], axis=1)
    assert_same(scored_rows, expected)


def test_types_of_parquet_stay(orders, tmp_path):
    """A kept column has the type of the input, and a prediction that of the model: times, decimals, lists, nulls."""
    frame = scored.orders(50)
    table = pa.Table.from_pandas(frame).append_column("tags", pa.array([["a"], None] * 25))
    table = table.append_column("fee", pa.array([None, Decimal("2.50")] * 25))
    pq.write_table(table, tmp_path / "in.parquet")
    code, _ = orders.score(tmp_path / "in.parquet", "-o", tmp_path / "out.parquet", "--keep", "*", "--prefix", "p_")
    output = pq.read_table(tmp_path / "out.parquet")
    assert code == 0
    assert output.select(table.column_names).equals(table.replace_schema_metadata())
    assert [str(field.type) for field in output.schema][-3:] == ["double", "string", "bool"]
    assert output.column_names[-3:] == ["p_total", "p_label", "p_is_large"]


def test_texts_of_csv_stay_as_they_are(orders, tmp_path):
    """A column that is kept from CSV has the texts of the file, with their zeros, and those that pandas reads as missing."""
    frame = scored.orders(3).assign(city=["007", "NA", "1.50"])
    orders.score(write(frame, tmp_path / "in.csv"), "-o", tmp_path / "out.csv", "--keep", "city")
    assert pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)["city"].tolist() == ["007", "NA", "1.50"]


def test_missing_values_of_csv(orders, tmp_path):
    """Texts are missing values where they are for pandas, and so for MLflow; spaces around numbers do not count."""
    text = "price,count,name,is_gift,discount\n 1.5 ,2,a,True,NA\n2e3,3.0,b,false,\n3,4,c,TRUE,1\n"
    (tmp_path / "in.csv").write_text(text)
    code, error = orders.score(tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    frame = pd.read_csv(tmp_path / "in.csv", true_values=["True", "TRUE"], false_values=["false"])
    assert code == 0, error
    assert_same(read(tmp_path / "out.csv"), orders.predict(frame.astype({"count": int})))


def test_delimiters_of_csv(orders, tmp_path):
    """--delimiter takes a character, and the two characters that people write for a tab."""
    frame = scored.orders(3)
    for delimiter, argument in ((";", ";"), ("\t", "\t"), ("\t", r"\t")):
        frame.to_csv(tmp_path / "in.csv", index=False, sep=delimiter)
        arguments = ("--delimiter", argument, "--overwrite")
        code, error = orders.score(tmp_path / "in.csv", "-o", tmp_path / "out.csv", *arguments)
        assert code == 0, error
        assert_same(read(tmp_path / "out.csv"), orders.predict(frame[scored.INPUTS]))


def test_a_folder_and_a_glob(orders, tmp_path):
    """The files of a folder, in any depth and format, and those of a glob are scored in the order of their names;
    files whose names begin with _ or . are left out."""
    frame, folder = scored.orders(90), tmp_path / "in"
    (folder / "b").mkdir(parents=True)
    write(frame[:30], folder / "a.parquet")
    write(frame[30:60], folder / "b" / "c.csv")
    (folder / "d.csv.gz").write_bytes(gzip.compress(frame[60:].to_csv(index=False).encode()))
    for name in ("_SUCCESS", "_old.csv", ".hidden.csv", "notes.txt"):
        (folder / name).write_text("x")
    code, error = orders.score(folder, "-o", tmp_path / "out.parquet", "--rows", 7, "--keep", "city")
    assert code == 0, error
    expected = pd.concat([frame[["city"]], orders.predict(frame[scored.INPUTS])], axis=1)
    assert_same(read(tmp_path / "out.parquet"), expected)
    code, error = orders.score(folder / "**" / "[a-z]*.csv*", "-o", tmp_path / "glob.parquet", "--keep", "city")
    assert code == 0, error
    assert_same(read(tmp_path / "glob.parquet"), expected[30:])


def test_files_of_fsspec(orders):
    """URLs are read and written through fsspec: files, folders and globs, and the output."""
    system = fsspec.filesystem("memory")
    frame = scored.orders(60)
    for name, rows in (("a", frame[:30]), ("b", frame[30:])):
        system.pipe(f"/bucket/in/{name}.csv", rows.to_csv(index=False).encode())
    expected = orders.predict(frame[scored.INPUTS])
    for number, source in enumerate(("memory://bucket/in", "memory://bucket/in/*.csv")):
        code, error = orders.score(source, "-o", f"memory://bucket/out{number}.parquet", "--rows", 20)
        assert code == 0, error
        with system.open(f"/bucket/out{number}.parquet") as file:
            assert_same(pd.read_parquet(file), expected)
    assert not system.exists("/bucket/out0.parquet.parts")


def test_a_url_without_its_package(orders, tmp_path):
    """The error names the packages to install."""
    code, error = orders.score("gs://bucket/in.csv", "-o", tmp_path / "out.csv")
    assert (code, "pip install fsspec" in error, "gcsfs" in error) == (2, True, True)


def test_a_model_without_types(models, tmp_path):
    """A model without a signature is called in JSON, with all columns or those of --columns; the types of CSV are those
    of the values."""
    model = models("untyped")
    frame = pd.DataFrame({"a": np.arange(100), "b": np.arange(100) / 8, "id": np.arange(100)})
    for source in ("in.parquet", "in.csv", "in.jsonl"):
        output = tmp_path / f"{source}.out.parquet"
        code, error = model.score(
            write(frame, tmp_path / source), "-o", output, "--columns", "a,b", "--keep", "id", "--rows", 30
        )
        assert code == 0, error
        assert read(output)["prediction"].tolist() == model.predict(frame[["a", "b"]])
        assert read(output)["id"].astype(int).tolist() == list(range(100))
    code, _ = model.score(tmp_path / "in.parquet", "-o", tmp_path / "all.jsonl")
    assert (code, read(tmp_path / "all.jsonl")["prediction"].tolist()) == (0, model.predict(frame))


def test_tensors(iris, tmp_path):
    """A model whose outputs have no names has them in the column `prediction`."""
    frame = pd.DataFrame(np.random.default_rng(0).uniform(0, 7, (200, 4)).round(1), columns=iris_columns(iris))
    code, _, error = predict_command(
        "score", write(frame, tmp_path / "in.csv"), "-o", tmp_path / "out.jsonl", "-a", iris.address, "-m", "iris"
    )
    assert code == 0, error
    expected = mlflow.pyfunc.load_model(str(iris.path)).predict(frame)
    assert read(tmp_path / "out.jsonl")["prediction"].tolist() == list(expected)


def iris_columns(iris: Any) -> Any:
    return mlflow.models.Model.load(str(iris.path)).get_input_schema().input_names()


def test_params(orders, tmp_path):
    """Params go into each call."""
    frame = scored.orders(10)
    orders.score(write(frame, tmp_path / "in.parquet"), "-o", tmp_path / "out.parquet", "--params", '{"factor": 2.5}')
    assert_same(read(tmp_path / "out.parquet"), orders.predict(frame[scored.INPUTS], params={"factor": 2.5}))


def test_no_rows(orders, tmp_path):
    """An input without rows gives an output without rows."""
    code, error = orders.score(write(scored.orders(0), tmp_path / "in.csv"), "-o", tmp_path / "out.csv")
    assert (code, error.splitlines()[-1]) == (0, f"{tmp_path / 'out.csv'} has 0 rows")


def test_a_model_of_other_rows(models, tmp_path):
    """A model that does not give a prediction for each row is refused."""
    path = write(scored.orders(10), tmp_path / "in.parquet")
    code, error = models("summary").score(path, "-o", tmp_path / "out.parquet")
    assert code == 1
    assert "answer to 10 rows has" in error
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing.csv", "-o", "out.csv"], "nothing.csv: there is no such file"),
        (["in.csv", "-o", "out.txt"], "out.txt: the format is unknown"),
        (["in.csv", "-o", "in.csv"], "in.csv is a file of the input"),
        (["in.csv", "-o", "out.csv", "--keep", "x"], "in.csv has no column 'x'; it has id, price"),
        (["in.csv", "-o", "out.csv", "--columns", "price"], "the model needs the column 'count'"),
        (["half.csv", "-o", "out.csv"], "half.csv: the model needs the column 'count'"),
        (["in.csv", "-o", "old.csv"], "old.csv exists: add --overwrite"),
        (["total.csv", "-o", "out.csv", "--keep", "total"], "add --prefix"),
        (["in.csv", "-o", "out.csv", "-m", "other"], "other"),
        (["empty.csv", "-o", "out.csv"], "empty.csv cannot be read: "),
        (["text.parquet", "-o", "out.csv"], "text.parquet cannot be read: "),
        (["in.csv", "-o", "out.csv", "--delimiter", "||"], "'||' is not a delimiter: use one ASCII character"),
    ],
)
def test_usage(orders, tmp_path, monkeypatch, arguments, reason):
    """What does not fit is refused before anything is written, with what to do."""
    monkeypatch.chdir(tmp_path)
    write(scored.orders(5), tmp_path / "in.csv")
    write(scored.orders(5).assign(total=1), tmp_path / "total.csv")
    write(scored.orders(5)[["price"]], tmp_path / "half.csv")
    (tmp_path / "old.csv").write_text("x")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "text.parquet").write_text("x")
    before = sorted(tmp_path.iterdir())
    code, error = orders.score(*arguments)
    assert (code, reason in error) == (2, True), error
    assert sorted(tmp_path.iterdir()) == before


def test_overwrite(orders, tmp_path):
    """--overwrite replaces an output and the errors of an earlier run."""
    (tmp_path / "out.csv").write_text("x")
    (tmp_path / "out.csv.errors.jsonl").write_text("x")
    frame = scored.orders(5)
    code, _ = orders.score(write(frame, tmp_path / "in.csv"), "-o", tmp_path / "out.csv", "--overwrite")
    assert code == 0
    assert_same(read(tmp_path / "out.csv"), orders.predict(frame[scored.INPUTS]))
    assert not (tmp_path / "out.csv.errors.jsonl").exists()


def test_no_server(tmp_path):
    """The error of the call is the line, and the exit code 1."""
    write(scored.orders(5), tmp_path / "in.csv")
    code, _, error = predict_command(
        "score", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "-a", "127.0.0.1:1", "-t", "2"
    )
    assert (code, "UNAVAILABLE" in error or "DEADLINE_EXCEEDED" in error) == (1, True)


def test_without_the_extra(orders, tmp_path, monkeypatch):
    """The error has the command that installs the extra."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, error = orders.score("in.csv", "-o", "out.csv")
    assert (code, f"pip install {install_argument(CLIENT, 'score')}" in error) == (2, True)


def test_a_payload_of_this_name():
    """`score` alone, or before flags of a call, is still a payload."""
    from mlflow_grpc_client._score.command import is_command

    assert not is_command(["score"])
    assert not is_command(["score", "-a", "127.0.0.1:1"])
    assert not is_command(["{}", "score"])
    assert is_command(["score", "in.csv"])
    assert is_command(["score", "--help"])
    assert is_command(["score", "--output=out.csv", "in.csv"])


def test_help():
    """--help lists the arguments and the exit codes."""
    code, out, _ = predict_command("score", "--help")
    assert (code, "--on-error" in out, "Exit codes: 0 all rows" in out) == (0, True, True)
