"""Checkpoints: what training hands over, read, validated, imported and merged into dense weights."""
