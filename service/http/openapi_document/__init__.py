"""OpenAPI document, made from the routes, the models and their source."""
