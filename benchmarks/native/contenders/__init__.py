"""The libraries that rank by inner product too, each behind the same two calls: build, and search at a setting."""
