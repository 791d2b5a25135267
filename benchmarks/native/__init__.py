"""The native engine beside every yardstick of the same run. See ``python -m benchmarks.native --help``."""
