"""Text to model input and predictions to text: MLflow's scoring contract, with no gRPC and no I/O."""
