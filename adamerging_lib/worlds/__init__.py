"""The worlds that methods are measured in: tasks, images, encoders, checkpoints."""
