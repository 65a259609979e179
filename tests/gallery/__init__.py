"""Examples in `examples/`, with the commands of their pages."""
