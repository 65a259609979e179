"""Servicers of the server, one thin servicer per protocol, and what they share."""
