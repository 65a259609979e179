"""MLflow's scoring contract: its formats, parsed and written by MLflow's own functions."""
