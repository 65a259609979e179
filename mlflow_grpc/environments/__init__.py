"""Environments from the requirements of a model: in a directory, or as the build context of an image."""
