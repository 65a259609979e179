"""Execution of requests: admission, batching, model threads, answers."""
