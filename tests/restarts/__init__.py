"""Rolling restarts behind real balancers."""
