"""The HTTP port: MLflow's REST contract, on the same engine as the gRPC services."""
