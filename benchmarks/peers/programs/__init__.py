"""Programs that serve an MLflow model with other libraries, run by the Python of the environment that has them.

Rule of this package: its modules import no others of this project, and are as short as the examples in the libraries'
docs.
"""
