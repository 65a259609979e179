"""Adds predictions to a database: reads flowers from SQLite, scores them by a served model, and writes the answers.

    python add_predictions.py flowers.db

MODEL_ADDRESS is the address of the server, localhost:50051 by default.
"""

import os
import sqlite3
import sys
from contextlib import closing

from mlflow_grpc_client import Client

ADDRESS = os.environ.get("MODEL_ADDRESS", "localhost:50051")
ROWS_PER_CALL = 1000
FEATURES = ("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm")

EXTRACT = f"""
    SELECT id, {", ".join(FEATURES)} FROM flowers
    WHERE id NOT IN (SELECT flower_id FROM predictions) ORDER BY id LIMIT {ROWS_PER_CALL}
"""  # noqa: S608  # Only names of this module.


def main(path: str) -> None:
    """Scores all flowers that have no prediction yet, so that a run that failed can be repeated."""
    with closing(sqlite3.connect(path)) as database, Client(ADDRESS) as client:
        iris = client.model("iris")
        database.execute("CREATE TABLE IF NOT EXISTS predictions (flower_id INTEGER PRIMARY KEY, species TEXT)")
        while flowers := database.execute(EXTRACT).fetchall():
            species = iris.predict([dict(zip(FEATURES, values, strict=True)) for _, *values in flowers])
            with database:  # One transaction for each call.
                predictions = zip((flower[0] for flower in flowers), species, strict=True)
                database.executemany("INSERT INTO predictions VALUES (?, ?)", predictions)
            print(f"{len(flowers)} predictions added")


if __name__ == "__main__":
    main(sys.argv[1])
