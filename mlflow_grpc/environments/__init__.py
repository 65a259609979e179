"""Environments that are made of what a model carries along: in a directory, or as an image's build context."""
