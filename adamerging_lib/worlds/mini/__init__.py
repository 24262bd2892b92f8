"""The drawn world: procedural tasks and a CLIP of our own."""
