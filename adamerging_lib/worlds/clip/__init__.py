"""The paper's scale: CLIP and its data sets, from a hub."""
