"""The rules that server and client share: names, numbers and shapes of messages, values, .proto files.

Private to mlflow-grpc and mlflow-grpc-client, which are released together. It is in the client's distribution, whose
requirements are a subset of the server's.

Rule of this package: it imports protobuf only, because the server imports it where gRPC and numpy may not be imported.
"""
