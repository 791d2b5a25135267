"""The user table on disk: codecs, shards, a streaming writer and a reader that maps files in place. Needs NumPy alone."""
