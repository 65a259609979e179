"""The command `mlflow-grpc-predict score`: files of rows in, a file of predictions out.

Rule of this package: only `arguments` and `command` work without the extra `score`; `command` checks for it before it
imports the others. Modules from the bottom to the top: `columns`, `files`, `chunks`, `readers`, `casts`, `answers`,
`calls`, `scorer`, `writers`, `parts`, `progress`, `pipeline`, `command`.
"""
