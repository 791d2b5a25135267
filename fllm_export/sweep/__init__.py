"""Latency against recall, measured: tables and searches of many settings on the same rows, in one run."""
