"""Model input and predictions as tensors of the Open Inference Protocol, version 2."""
