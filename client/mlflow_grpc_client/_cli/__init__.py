"""The command mlflow-grpc-predict."""
