"""The operations of OpenAPI documents."""
