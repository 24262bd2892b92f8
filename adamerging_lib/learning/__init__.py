"""What methods that learn share: streams of images, the objective, its descent."""
