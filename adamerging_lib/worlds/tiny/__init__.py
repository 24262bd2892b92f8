"""Photographs: eight real image sets and a pretrained ViT-Ti/16."""
