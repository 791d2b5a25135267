"""The deployable directory: build, verify, describe."""
