"""Where models come from: what every hosted model can do, and how an MLflow model becomes one."""
