"""Clients of the Open Inference Protocol that others have written (make triton)."""
