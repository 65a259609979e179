"""A sample of the calls, with their inputs and outputs, in Parquet files.

Rule of this package: a call never waits for it. What a thread cannot write in time is dropped and counted.
"""

from mlflow_grpc.recording.table import evaluation_table

__all__ = ["evaluation_table"]
