"""Trials of features: a row of the comparison in the README is tried on servers, and the report says what happened."""
