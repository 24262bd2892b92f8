"""The drawn world: eight procedural tasks and a CLIP of our own."""
