"""Adapters (LoRA of peft, kohya and diffusers) as experts: the change that they make to a base, and one written."""
