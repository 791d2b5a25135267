"""Baselines of the field that make vectors of cold items from their content, beside a recommender."""
