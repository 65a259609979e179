"""Connections to servers: addresses, targets, channels."""
