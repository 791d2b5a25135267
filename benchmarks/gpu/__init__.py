"""The engine ``cuda`` beside a GPU's own ceilings and beside torch. See ``python3 -m benchmarks.gpu --help``."""
