"""Models on the fast path (plain columns, scikit-learn), compared with a real `mlflow models serve`."""

import json
import math
import random
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature

from tests.support import versions
from tests.support.depth import examples, sample
from tests.support.payloads import TEXTS
from tests.support.servers import Caller, post, ready_address, start_mlflow_server, start_server

COLUMNS = ["sepal length", "sepal_width", "größe", "d"]


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Probabilities of a logistic regression, whose last bits depend on the order of summation."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data, target = load_iris(return_X_y=True, as_frame=True)
    data.columns = COLUMNS
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(data, target)
    path = tmp_path_factory.mktemp("flowers") / "flowers"
    mlflow.sklearn.save_model(
        model,
        path,
        serialization_format=versions.SKLEARN_FORMAT,
        signature=infer_signature(data, model.predict_proba(data)),
        input_example=data.head(3),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["mlflow", "scikit-learn"],
    )
    return path


def texts(count):
    """Returns payloads of one to three rows in every format."""
    dice = random.Random(2)
    for number in range(count):
        rows = [[round(dice.uniform(0, 8), dice.randrange(12)) for _ in COLUMNS] for _ in range(dice.randrange(1, 4))]
        yield json.dumps(
            [
                {"dataframe_split": {"columns": COLUMNS, "data": rows}},
                {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in rows]},
                {"inputs": {name: [row[index] for row in rows] for index, name in enumerate(COLUMNS)}},
                {"instances": [dict(zip(COLUMNS, row, strict=True)) for row in rows]},
            ][number % 4]
        )


@pytest.fixture(scope="module")
def expected(flowers):
    """Payloads, and the status and the body of the oracle's answer to each."""
    requests = [*texts(examples(200)), *sample(text for text in TEXTS if len(text) < 1000)]
    process, url = start_mlflow_server(flowers)
    with process:
        return {text: post(url, text) for text in requests}


def close(ours, theirs):
    """Returns True for the same JSON, with floats within 1e-9."""
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return math.isclose(ours, theirs, rel_tol=1e-9) if isinstance(ours, float) else ours == theirs


@pytest.mark.parametrize("batching", ["off", "auto", "on"])
def test_answers(flowers, expected, batching):
    """Each answer has MLflow's text, one at a time and 32 at a time, except for the last bits if the owner has rows
    predicted together."""
    requests = list(expected)
    with start_server("-m", str(flowers), "--batching", batching, "--log-level", "info") as process:
        with Caller(ready_address(process)) as call, ThreadPoolExecutor(32) as pool:
            for outcomes in (map(call.outcome, requests), pool.map(call.outcome, requests * 3)):
                for text, outcome in zip(requests * 3, outcomes, strict=False):
                    status, body = expected[text]
                    assert (outcome[0] == "OK") == (status == 200)
                    if status == 200 and batching != "on":
                        assert outcome[1] == body
                    elif status == 200:
                        assert close(json.loads(outcome[1] or "")["predictions"], json.loads(body)["predictions"])
        process.wait_for(f"batching {'off' if batching == 'off' else 'on'}: ")


@pytest.fixture(scope="module")
def passengers(tmp_path_factory):
    """Probabilities for rows that may lack an age or a fare, by an imputer that computes several rows at once."""
    from sklearn.compose import make_column_transformer
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - allows the import below
    from sklearn.impute import IterativeImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    dice = np.random.default_rng(0)
    data = pd.DataFrame(
        {"age": dice.normal(30, 9, 300), "fare": dice.gamma(2, 15, 300), "class": dice.normal(size=300)}
    )
    target = data["age"] > data["fare"]
    data["sex"] = dice.choice(["female", "male"], 300)
    data = data.mask(np.stack([dice.random(300) < 0.1, dice.random(300) < 0.1, [False] * 300, [False] * 300], axis=1))
    model = make_pipeline(
        make_column_transformer((IterativeImputer(), ["age", "fare", "class"]), (OneHotEncoder(), ["sex"])),
        LogisticRegression(max_iter=1000),
    ).fit(data, target)
    path = tmp_path_factory.mktemp("passengers") / "passengers"
    mlflow.sklearn.save_model(
        model,
        path,
        serialization_format="cloudpickle",
        signature=infer_signature(data, model.predict_proba(data)),
        input_example=data.head(20),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["mlflow", "scikit-learn"],
    )
    return path


def test_missing_numbers(passengers):
    """Rows that lack numbers of optional columns are batched, and each answer has MLflow's text."""
    dice = random.Random(3)
    names = ["age", "fare", "class", "sex"]
    requests = []
    for turn in range(examples(60)):
        ages = [dice.choice([None, float("nan"), 18, 35.5]), dice.uniform(1, 80)]
        rows = [
            [age, dice.choice([None, dice.uniform(5, 90)]), dice.gauss(0, 1), "male"] for age in ages[: 1 + turn % 2]
        ]
        records = [dict(zip(names, row, strict=True)) for row in rows]
        split = {"columns": names, "data": rows}
        columns = {name: [record[name] for record in records] for name in names}
        odd = [{**records[0], "class": None}, {key: value for key, value in records[0].items() if key != "fare"}]
        requests += [
            json.dumps(payload)
            for payload in (
                {"dataframe_split": split},
                {"dataframe_records": records},
                {"inputs": columns},
                {"instances": records},
                *({"dataframe_records": [record]} for record in odd),
            )
        ]
    process, url = start_mlflow_server(passengers)
    with process:
        expected = [post(url, text) for text in requests]
    assert {status for status, _ in expected} >= {200, 400}
    with start_server("-m", str(passengers), "--log-level", "info") as process:
        with Caller(ready_address(process)) as call, ThreadPoolExecutor(32) as pool:
            for outcomes in (map(call.outcome, requests), pool.map(call.outcome, requests)):
                for (status, body), outcome in zip(expected, outcomes, strict=True):
                    assert (outcome[0] == "OK") == (status == 200)
                    if status == 200:
                        assert outcome[1] == body
        process.wait_for("batching on: ")
