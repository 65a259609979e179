"""The faces of the server: one thin servicer a protocol, and what all of them share."""
