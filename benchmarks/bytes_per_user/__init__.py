"""What rows of a given size rank like."""
