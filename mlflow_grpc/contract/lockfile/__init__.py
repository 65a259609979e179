"""The lock file: name and number of each field of each model's messages, kept from version to version.

Rule of this package: it uses the types and shapes of a contract, but no messages. The modules that make messages import
it.
"""
