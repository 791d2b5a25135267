"""Text-to-judgment, the published predecessor of text-to-distribution, beside it: time per item and ranking."""
