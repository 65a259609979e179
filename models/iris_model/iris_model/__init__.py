"""An iris classifier with the MLModel interface."""
