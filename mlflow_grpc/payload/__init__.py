"""Conversion of text to model input and of predictions to text: MLflow's scoring contract, without gRPC and I/O."""
