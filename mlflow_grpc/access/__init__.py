"""Who may call: names of callers from tokens, JWTs and certificates, and what these callers may do.

Rule of this package: it imports neither gRPC nor an HTTP server. `services/dispatch.py` and `http/guard.py` pass it
what a call has brought, and nothing here reads a request.
"""
