"""The distributions in dist/, built by `python -m scripts.build_release`."""
