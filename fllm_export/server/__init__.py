"""The HTTP server: a bundle or a user table behind ``POST /v1/topk``."""
