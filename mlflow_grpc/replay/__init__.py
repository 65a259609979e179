"""Recorded calls that are made again, against another version of a model or another server.

Rule of this package: it is a client. Of the server it imports only what reads the files.
"""
