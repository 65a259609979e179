"""The way to the servers: addresses, targets, channels."""
