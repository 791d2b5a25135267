"""The servers under load, beside the library's own throughput in the same run."""
