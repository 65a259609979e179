"""The OpenAPI document of the HTTP port, made of what models declare."""
