"""Models that follow their registry or are reloaded: a version is loaded, checked and published beside calls.

Rule of this package: whatever fails in it, the served version goes on. The registry is queried by `hosting`.
"""
