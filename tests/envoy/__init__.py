"""Servers behind a real Envoy with deploy/envoy/envoy.yaml."""
