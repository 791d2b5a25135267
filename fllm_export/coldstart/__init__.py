"""The cold-start loop: likely users of a new item become its vector in the platform's recommender."""
