"""Arrow tables as model input, and predictions as Arrow tables."""
