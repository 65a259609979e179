"""Environments from a model's requirements: in a directory, or as the build context of an image."""
