"""Trains the example model and saves it as an MLflow model and in an MLModel package (`make models/iris`).

The MLflow model is in models/iris/, the package in models/iris_model/. scikit-learn ships the data, so nothing is
downloaded. The repository does not contain the model, because a pickled model needs the versions that wrote it.
"""

import shutil
import sys
from pathlib import Path

import mlflow
import skops.io
from mlflow.models import infer_signature
from mlflow.sklearn import SUPPORTED_SERIALIZATION_FORMATS
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODELS = Path(__file__).parent


def main(target: Path, package: Path | None = None) -> None:
    """Trains the model and saves it.

    Args:
        target: The directory of the MLflow model, which is replaced completely.
        package: The directory of the MLModel package, which gets the model as the file model.skops.

    """
    iris = load_iris(as_frame=True)
    species = iris.target.map(dict(enumerate(iris.target_names)))
    features = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_") + "_cm")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, species)
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    mlflow.sklearn.save_model(
        model,
        unfinished,
        # MLflow before 3.9 supports only pickles.
        serialization_format="skops" if "skops" in SUPPORTED_SERIALIZATION_FORMATS else "cloudpickle",
        signature=infer_signature(features, model.predict(features)),
        input_example=features.head(2),
        pip_requirements=[f"{name}=={version}" for name, version in _versions()],
    )
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    if package is not None:
        # The package takes measurements without names.
        skops.io.dump(clone(model).fit(features.to_numpy(), species), package / "model.skops.unfinished")
        (package / "model.skops.unfinished").rename(package / "model.skops")


def _versions() -> list[tuple[str, str]]:
    import sklearn

    return [("mlflow", mlflow.__version__), ("scikit-learn", sklearn.__version__)]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else MODELS / "iris", MODELS / "iris_model" / "iris_model")
