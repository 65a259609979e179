"""The OpenAPI document of the HTTP port, generated from the models' signatures, schemas and examples."""
