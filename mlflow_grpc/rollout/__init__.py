"""Models that follow their registry: another version is loaded, checked and published while calls are answered.

Rule of this package: whatever fails in it, the served version goes on. The registry is queried by `hosting`.
"""
