"""The command `mlflow-grpc-predict score`: files of rows in, a file of predictions out.

Rule of this package: `command` checks that the extra `score` is installed before it imports a module other than
`arguments` and `errors`. Modules from the bottom to the top: `errors`, `columns`, `files`, `chunks`, `readers`,
`casts`, `answers`, `calls`, `scorer`, `writers`, `parts`, `pace`, `bar`, `progress`, `pipeline`, `model`, `job`,
`command`.
"""
