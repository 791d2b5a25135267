"""The user table on disk: codecs, shards, a streaming writer and a reader in place. Needs NumPy alone."""
