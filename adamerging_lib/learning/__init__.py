"""What methods that learn from images share."""
