"""scikit-learn models in their most common form: pickled by cloudpickle, which imports scikit-learn when it loads them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROW = [5.1, 3.5, 1.4, 0.2]


def save(folder: Path) -> Path:
    """Saves four models, and returns a configuration file that lists them."""
    import mlflow
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    table, labels = rng.random((60, 4)), rng.integers(0, 3, 60)
    estimators: dict[str, Any] = {
        "one": LogisticRegression(),
        "two": LogisticRegression(C=0.5),
        "linear": LinearRegression(),
        "tree": DecisionTreeClassifier(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator in estimators.items():
            mlflow.sklearn.save_model(
                estimator.fit(table, labels),
                folder / name,
                pip_requirements=["scikit-learn"],
                serialization_format="cloudpickle",
            )
    file = folder / "models.yaml"
    models = [{"uri": str(folder / name), "name": name} for name in estimators]
    file.write_text(yaml.safe_dump({"models": models}))
    return file
