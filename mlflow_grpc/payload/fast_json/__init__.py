"""The fast path for JSON of plain rows: decoded without MLflow, with its result to the bit."""
