"""Merging files tensor by tensor, without loading a model."""
