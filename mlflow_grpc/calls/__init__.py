"""What the calls of every protocol have in common: who calls, which calls are open, how they end, their log lines."""
