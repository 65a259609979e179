"""Rolling restarts behind real load balancers."""
