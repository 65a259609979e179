"""The lock file: the name and number of each field of each model's messages, kept from version to version.

Rule of this package: it knows the types and shapes of a contract, and nothing of messages. The modules that make
messages import it.
"""
