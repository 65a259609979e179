"""Calls of every protocol: their callers, the registry of open calls, how they end, and their log lines."""
