"""hosting/pyfunc/row_exactness.py: rows in a batch get their own answers, even where the last digit of a sum decides."""

import json
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import NMF, PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine import loading
from mlflow_grpc.hosting.pyfunc import row_exactness
from mlflow_grpc.hosting.pyfunc.label_scores import LabelScores
from mlflow_grpc.hosting.pyfunc.row_exactness import BatchExactness
from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock
from mlflow_grpc.settings import Settings
from tests.support import depth

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread():
    """Limits numerical libraries to one thread, because threads that wait for each other take a second per call on a
    busy machine."""
    with threadpool_limits(1):
        yield


DICE = np.random.default_rng(0)
COLUMNS = [f"f{index}" for index in range(20)]
# Few distinct values, so that ties are common.
COARSE = pd.DataFrame(DICE.integers(0, 4, size=(400, 20)) / 10.0, columns=COLUMNS)
THREE = np.array(["a", "b", "c"])[DICE.integers(0, 3, 400)]
NUMBER = DICE.normal(size=400)


def tying(estimator):
    """Makes an estimator in which two labels score the same, except for rounding, for rows with equal values left and
    right."""
    estimator.coef_ = np.array([[1.0] * 10 + [0.0] * 10, [0.0] * 10 + [1.0] * 10, [-1.0] * 20])
    estimator.intercept_ = np.zeros(3)
    return estimator


def share_of_the_first(rows):
    """A foreign function that refuses most numbers."""
    if not rows.max(axis=None) < 1:
        raise ValueError("there are values of 0.0 to 0.9 only")
    return rows / rows.iloc[0].sum()


class Halves(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A foreign classifier without `n_features_in_`."""

    def fit(self, rows, labels):
        self.classes_ = np.unique(labels)
        self.weights_ = np.zeros((20, 2))
        self.weights_[:10, 0] = DICE.normal(size=10)
        self.weights_[10:, 1] = self.weights_[9::-1, 0]
        return self

    def predict(self, rows):
        return self.classes_[(np.asarray(rows) @ self.weights_).argmax(axis=1)]


@dataclass
class Unfitted:
    """An estimator that its test fits, because that takes too long for the collection of tests."""

    estimator: Any
    labels: Any = field(default_factory=lambda: THREE)
    rows: pd.DataFrame = field(default_factory=lambda: COARSE)
    is_tying: bool = False

    def fit(self) -> Any:
        """Returns the fitted estimator."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = self.estimator.fit(self.rows.copy(), self.labels)  # Some pipelines change their input.
        return tying(fitted) if self.is_tying else fitted


@pytest.fixture
def load(tmp_path):
    """Returns a function that saves a fitted estimator and loads it as the server does."""

    def load(estimator) -> Any:
        path = tmp_path / "model"
        mlflow.sklearn.save_model(
            estimator, path, signature=infer_signature(COARSE, estimator.predict(COARSE.copy())),
            input_example=COARSE[:5], pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
        )  # fmt: skip
        return loading.load(ModelConfig(uri=str(path), endpoint=True), Settings(model_uri=str(path), port=0))

    return load


@pytest.mark.parametrize(
    "unfitted",
    [
        Unfitted(KNeighborsRegressor(5), NUMBER),
        Unfitted(KNeighborsClassifier(1)),
        Unfitted(NearestCentroid()),
        Unfitted(LogisticRegression(), is_tying=True),
        Unfitted(make_pipeline(StandardScaler(), LogisticRegression())),
        Unfitted(make_pipeline(PCA(5), KNeighborsClassifier(3))),
        Unfitted(make_pipeline(StandardScaler(copy=False), LogisticRegression())),
        Unfitted(Halves()),
    ],
    ids=lambda unfitted: type(unfitted.estimator).__name__,
)
def test_rows_in_batches_get_the_answers_for_rows_alone(unfitted, load):
    """Rows with common ties, in batches of 32 and in calls of their own, get scikit-learn's answer for the row alone."""
    estimator = unfitted.fit()
    loaded = load(estimator)
    assert loaded.batched
    inputs = DICE.integers(0, 4, size=(128 if depth.is_deep else 48, 20)) / 10.0
    inputs[::2, 10:] = inputs[::2, 9::-1]
    members = [RowBlock(inputs[index : index + 1], 1) for index in range(len(inputs))]
    alone = [estimator.predict(pd.DataFrame(row[None], columns=COLUMNS)) for row in inputs]
    for size in (1, 32):
        encoded = [
            loaded.fast_path.runner.encode(chunk)
            for start in range(0, len(members), size)
            for chunk in loaded.fast_path.runner.predict(members[start : start + size])
        ]
        assert encoded == [loaded.fast_path.runner.encode(answer) for answer in alone]


def exactness(estimator, rows=COARSE):
    """Returns the exactness that is found for an estimator as an MLflow model."""

    class Model:
        metadata = mlflow.models.Model(flavors={"python_function": {"predict_fn": "predict"}})

        def get_raw_model(self):
            return estimator

    model: Any = Model()
    return row_exactness.check_exactness(model, rows.copy())  # Some pipelines change their input.


@pytest.mark.parametrize(
    ("unfitted", "expected"),
    [
        (Unfitted(RandomForestClassifier(10)), BatchExactness.EXACT),
        (Unfitted(SVC()), BatchExactness.EXACT),
        (Unfitted(KNeighborsRegressor(5, algorithm="kd_tree"), NUMBER), BatchExactness.EXACT),
        (Unfitted(make_pipeline(OneHotEncoder(), RandomForestClassifier(3))), BatchExactness.EXACT),
        (Unfitted(make_pipeline(NMF(3, max_iter=500), RandomForestClassifier(3))), BatchExactness.UNKNOWN),
        (
            Unfitted(make_pipeline(FunctionTransformer(share_of_the_first), RandomForestClassifier(3))),
            BatchExactness.UNKNOWN,
        ),
        (Unfitted(LogisticRegression()), BatchExactness.EXCEPT_TIES),
        (Unfitted(LogisticRegression(), THREE == "a"), BatchExactness.EXCEPT_TIES),
        (Unfitted(MLPClassifier((5,), max_iter=300, tol=1e-2)), BatchExactness.EXCEPT_TIES),
        (Unfitted(GaussianNB()), BatchExactness.EXCEPT_TIES),
        (Unfitted(GaussianNB(var_smoothing=0), rows=COARSE * 1e-8), BatchExactness.EXCEPT_TIES),
        (
            Unfitted(GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2)),
            BatchExactness.EXCEPT_TIES,
        ),
        (Unfitted(make_pipeline(PCA(5), LogisticRegression())), BatchExactness.UNKNOWN),
        (
            Unfitted(make_pipeline(StandardScaler(copy=False), LogisticRegression())),
            BatchExactness.EXCEPT_TIES,
        ),
        (Unfitted(CalibratedClassifierCV(LinearSVC(), cv=2)), BatchExactness.UNKNOWN),
        (Unfitted(KNeighborsClassifier(5)), BatchExactness.UNKNOWN),
        (
            Unfitted(MLPClassifier((5,), max_iter=300, tol=1e-2), np.stack([NUMBER > 0, NUMBER > 1], axis=1)),
            BatchExactness.UNKNOWN,
        ),
    ],
    ids=lambda value: type(getattr(value, "estimator", value)).__name__,
)
def test_exactness_depends_on_the_deciding_numbers(unfitted, expected):
    """Sums that differ in a batch are safe only if the best of them decides the answer.

    Some processors have a linear algebra library that adds up several rows like one.
    """
    estimator = unfitted.fit()
    verdict, _ = exactness(estimator)
    assert verdict is expected or (verdict is BatchExactness.EXACT and all(map(are_as_alone, numbers_of(estimator))))


class ExactInDoubles(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Adds up single-precision numbers of several rows in another order than those of one row."""

    classes_ = np.array(["a", "b"])

    def fit(self, rows, _labels):
        self.n_features_in_ = rows.shape[1]
        return self

    def decision_function(self, rows):
        numbers = np.asarray(rows)
        is_turned = numbers.dtype == np.float32 and len(numbers) > 1
        return np.cumsum(numbers[:, ::-1] if is_turned else numbers, axis=1)[:, -1]

    def predict(self, rows):
        return self.classes_[(self.decision_function(rows) > 0).astype(int)]


class SlowAndInexactInLargeBatches(ExactInDoubles):
    """Computes for 2 ms in each call, and adds up more than 100 rows in another order than fewer."""

    def decision_function(self, rows):
        end_s = time.perf_counter() + 0.002
        while time.perf_counter() < end_s:
            pass
        return np.cumsum(rows[:, ::-1] if len(rows) > 100 else rows, axis=1)[:, -1]


def test_slow_estimators_are_tried_in_large_batches():
    """An estimator that predicts few rows in the time of the check is still tried in batches of all sizes."""
    verdict, _ = exactness(Unfitted(SlowAndInexactInLargeBatches()).fit())
    assert verdict is BatchExactness.UNKNOWN


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ("float64", BatchExactness.EXACT),
        ("int64", BatchExactness.EXACT),
        ("float32", BatchExactness.UNKNOWN),
        ("uint8", BatchExactness.UNKNOWN),
        ({"f0": "float32", "f1": "object"}, BatchExactness.UNKNOWN),
    ],
    ids=str,
)
def test_single_precision_is_checked_where_possible(dtypes, expected):
    """Single and double precision have different kernels: one may be exact and the other not."""
    integers = (COARSE * 10).round()
    estimator = ExactInDoubles().fit(integers, THREE)
    assert exactness(estimator, integers.astype(dtypes))[0] is expected
    if isinstance(dtypes, str):
        assert exactness(estimator, integers.to_numpy().astype(dtypes))[0] is expected


class ImputerOfManyRows(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Adds up the present numbers of several rows in another order than those of one row, where one is missing."""

    def fit(self, rows, _labels=None):
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows):
        numbers = np.asarray(rows).copy()
        missing = np.isnan(numbers)
        present = np.where(missing, 0.0, numbers)
        sums = np.cumsum(present[:, ::-1] if len(numbers) > 1 else present, axis=1)[:, -1]
        return np.where(missing, sums[:, None], numbers)


def test_imputers_are_tried_with_missing_numbers():
    """A pipeline whose imputer computes several rows at once is exact only while no number is missing."""
    estimator = Unfitted(make_pipeline(ImputerOfManyRows(), RandomForestClassifier(3))).fit()
    assert exactness(estimator)[0] is BatchExactness.EXACT
    missing = COARSE.astype(float).mask(np.eye(len(COARSE), 20, dtype=bool))
    assert exactness(estimator, missing)[0] is BatchExactness.UNKNOWN
    unchanged = Unfitted(make_pipeline(SimpleImputer(), RandomForestClassifier(3))).fit()
    assert exactness(unchanged, missing)[0] is BatchExactness.EXACT


OPTIONAL = COARSE.mask(np.eye(len(COARSE), 20, dtype=bool))


@pytest.mark.parametrize(
    ("estimator", "takes_missing"),
    [(make_pipeline(SimpleImputer(), LogisticRegression()), True), (LogisticRegression(), False)],
    ids=["imputer", "none"],
)
def test_missing_numbers_are_batched_if_the_model_predicts_them(estimator, takes_missing, tmp_path):
    """Rows with missing numbers take the fast path of a model that predicts them, and are left to MLflow otherwise."""
    mlflow.sklearn.save_model(
        estimator.fit(COARSE, THREE), tmp_path / "model", signature=infer_signature(OPTIONAL, THREE),
        input_example=OPTIONAL[:5], pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
    )  # fmt: skip
    config = ModelConfig(uri=str(tmp_path / "model"), endpoint=True)
    loaded: Any = loading.load(config, Settings(model_uri=str(tmp_path / "model"), port=0))
    assert loaded.batched, loaded.batching_reason
    decode = loaded.fast_path.decoder.decode
    for frame, is_plain in ((COARSE[:3], True), (OPTIONAL[:3], takes_missing)):
        rows = decode(json.dumps({"dataframe_records": frame.to_dict(orient="records")}))
        assert (rows is not None) is is_plain
        if rows is not None:
            (answer,) = loaded.fast_path.runner.run([rows])
            assert json.loads(answer) == {"predictions": estimator.predict(frame).tolist()}


def test_a_model_with_params_is_batched(tmp_path, monkeypatch):
    """Payloads without params are predicted together, by MLflow's own predict, which passes the defaults."""
    estimator = LinearRegression().fit(COARSE, NUMBER)
    mlflow.sklearn.save_model(
        estimator, tmp_path / "model", signature=infer_signature(COARSE, NUMBER, params={"scale": 2.0}),
        input_example=COARSE[:5], pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
    )  # fmt: skip
    config = ModelConfig(uri=str(tmp_path / "model"), endpoint=True)
    loaded: Any = loading.load(config, Settings(model_uri=str(tmp_path / "model"), port=0))
    assert loaded.batched, loaded.batching_reason
    seen = []
    predict = loaded.model.loaded._predict_fn

    def predict_and_note(data, params=None):
        seen.append(params)
        return predict(data, params)

    monkeypatch.setattr(loaded.model.loaded, "_predict_fn", predict_and_note)
    fast_path = loaded.fast_path
    rows = [
        fast_path.decoder.decode(json.dumps({"dataframe_records": frame.to_dict(orient="records")}))
        for frame in (COARSE[:1], COARSE[1:3])
    ]
    answers = [json.loads(answer)["predictions"] for answer in fast_path.runner.run(rows)]
    expected = [estimator.predict(COARSE[index : index + 1]) for index in range(3)]
    assert np.allclose(np.concatenate(answers), np.concatenate(expected), rtol=1e-12)
    assert {str(params) for params in seen} == {"{'scale': 2.0}"}


def numbers_of(estimator):
    """Returns the functions for the numbers behind an estimator's answers."""
    return [
        getattr(estimator, name)
        for name in ("decision_function", "predict_joint_log_proba", "predict_proba")
        if hasattr(estimator, name)
    ]


def are_as_alone(function):
    """Returns True if rows in batches of any size get the same results, to the last bit, as alone."""
    rows = COARSE[:128].to_numpy()

    def answers(start, end, layout=np.ascontiguousarray):
        return function(pd.DataFrame(layout(rows[start:end].copy()), columns=COLUMNS))

    alone = np.concatenate([answers(index, index + 1) for index in range(len(rows))])
    return all(
        answers(0, size, layout).tobytes() == alone[:size].tobytes()
        for size in range(2, len(rows) + 1)
        for layout in (np.ascontiguousarray, np.asfortranarray)
    )


def scores_of(estimator, rows):
    """Returns the labels by scores, as for an estimator whose rows differ in batches."""
    return LabelScores(estimator, "decision_function", rows)


def test_tied_rows_are_found():
    """Tied rows are a row with two equal best scores, a row between two labels, and a row with NaN, and no others."""
    columns = ["x", "y"]
    rows = pd.DataFrame([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]] * 20, columns=columns)
    for labels in (["a", "b", "c"] * 20, ["a", "b", "b"] * 20):
        estimator = LogisticRegression().fit(rows, labels)
        estimator.intercept_ = np.zeros_like(estimator.intercept_)
        scores = scores_of(estimator, rows)
        frame = pd.DataFrame([[0.0, 0.0], [1.0, 0.0], [1e-12, -1e-12], [-0.2, 0.9]], columns=columns)
        predicted, tied = scores.predict(frame)
        assert predicted.tolist() == estimator.predict(frame).tolist()
        assert tied == [0, 2]
        assert scores.predict(frame[1:2])[1] == []


@pytest.mark.parametrize("ways", [("brute", "kd_tree", "kd_tree"), ("kd_tree", "kd_tree", "brute")])
def test_components_with_different_methods_are_all_checked(ways):
    """Of three components of the same class, those with tree search are checked, and so is one that computes distances."""
    voters = [(f"v{index}", KNeighborsClassifier(3, algorithm=way)) for index, way in enumerate(ways)]
    assert exactness(VotingClassifier(voters).fit(COARSE, THREE))[0] is BatchExactness.UNKNOWN


def test_single_precision_has_a_wider_tie_tolerance():
    """A row counts as tied if its scores differ by less than rounding errors of sums over that many pixels."""
    pixels = (DICE.integers(0, 256, (200, 784)) / 255).astype(np.float32)
    estimator = RidgeClassifier().fit(pixels, THREE[:200] == "a")
    distances = estimator.decision_function(pixels)
    estimator.intercept_ -= distances[5] - np.float32(1e-5) * np.abs(distances).max()
    scores = scores_of(estimator, pixels[:64])
    assert 5 in scores.predict(pixels)[1]


def refuse(*_args, **_options):
    raise AssertionError("checked all the same")


LINEAR = [
    LogisticRegression(),
    LinearSVC(),
    Perceptron(),
    RidgeClassifier(),
    SGDClassifier(random_state=0),
    make_pipeline(StandardScaler(), LogisticRegression()),
    make_pipeline(StandardScaler(with_mean=False), StandardScaler(with_std=False), LinearSVC()),
]


def class_names(estimator):
    """Returns the class name of an estimator, or those of the steps of a pipeline."""
    return "-".join(type(step).__name__ for _, step in getattr(estimator, "steps", [("", estimator)]))


@pytest.mark.parametrize("labels", [THREE, THREE == "a"], ids=["three", "two"])
@pytest.mark.parametrize("estimator", [*LINEAR, LinearDiscriminantAnalysis()], ids=class_names)
def test_direct_scores_equal_scikit_learns(estimator, labels, monkeypatch):
    """Labels without scikit-learn's checks equal its own; rows that the checks would refuse count as tied."""
    rows = COARSE.to_numpy()
    estimator = clone(estimator).fit(rows, labels)
    scores = scores_of(estimator, rows[:64])
    inputs = DICE.normal(size=(256, 20))
    inputs[::3] = rows[:86]
    expected = estimator.predict(inputs)
    if type(estimator) is not LinearDiscriminantAnalysis:  # This class has its own decision_function.
        monkeypatch.setattr("sklearn.linear_model._base.validate_data", refuse)
        monkeypatch.setattr("sklearn.preprocessing._data.validate_data", refuse)
    predicted, tied = scores.predict(inputs)
    clear = [index for index in range(256) if index not in tied]
    assert len(clear) > 200
    assert predicted[clear].tolist() == expected[clear].tolist()


class CautiousScaler(StandardScaler):  # type: ignore[misc]
    """A scaler that refuses numbers which make good scores."""

    def transform(self, X, copy=None):  # noqa: N803 - scikit-learn's name
        if (X > 1000).any():
            raise ValueError("there are values of at most 1000 only")
        return super().transform(X, copy)


def test_a_pipeline_with_a_foreign_scaler_keeps_its_checks():
    """Only scikit-learn's own scaler is replaced, because a subclass may refuse rows."""
    rows = COARSE.to_numpy()
    scores = scores_of(make_pipeline(CautiousScaler(), LogisticRegression()).fit(rows, THREE), rows[:64])
    with pytest.raises(ValueError, match="at most 1000"):
        scores.predict(rows + 2000)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e308])
@pytest.mark.parametrize("labels", [THREE, THREE == "a"], ids=["three", "two"])
@pytest.mark.parametrize("estimator", LINEAR, ids=class_names)
def test_rows_with_refused_numbers_count_as_tied(estimator, labels, number, recwarn):
    """Rows with a refused number count as tied, without a warning, wherever the number is."""
    rows = COARSE.to_numpy()
    scores = scores_of(clone(estimator).fit(rows, labels), rows[:64])
    for column in range(20):
        inputs = rows[:8].copy()
        inputs[3, column] = number
        assert 3 in scores.predict(inputs)[1] or np.isfinite(number)
        inputs[5, column] = np.nan
        assert {3, 5} <= {*scores.predict(inputs)[1]} or np.isfinite(number)
    assert not [str(warning.message) for warning in recwarn if "encountered in" in str(warning.message)]
