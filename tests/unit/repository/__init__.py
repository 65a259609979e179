"""Tests of the repository itself: its texts, names, structure and files."""
