"""Ray Serve as a host of models, with a real cluster of one node."""
