"""Other libraries that rank by inner product, each behind the same two calls: build, and search at a setting."""
