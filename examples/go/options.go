package main

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// The codec of gRPC 1.33, which Debian 12 has, does not know the messages of its protoc-gen-go 1.28. Newer versions need
// no codec, and grpc.WithTransportCredentials(insecure.NewCredentials()) instead of grpc.WithInsecure.
type codec struct{}

func (codec) Marshal(message interface{}) ([]byte, error) { return proto.Marshal(message.(proto.Message)) }

func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func (codec) Name() string { return "proto" }

var options = []grpc.DialOption{grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}))}
