"""Names of the tensors of open_clip's CLIP models with a ViT, in their order."""

from __future__ import annotations

# What an open_clip model keeps beside its two towers. The published image encoders hold these six although they never
# use them: only the text transformer itself was deleted before they were saved (METHODS §0.2).
TEXT_BEFORE = ("positional_embedding", "text_projection", "logit_scale")
TEXT_AFTER = ("token_embedding.weight", "ln_final.weight", "ln_final.bias")


def tower_names(blocks: int) -> tuple[str, ...]:
    """Tensors of a vision tower with so many blocks."""
    modules = ("ln_1", "attn.in_proj", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    block = [f"{m}{'_' if m == 'attn.in_proj' else '.'}{p}" for m in modules for p in ("weight", "bias")]
    return (
        *("class_embedding", "positional_embedding", "proj", "conv1.weight", "ln_pre.weight", "ln_pre.bias"),
        *(f"transformer.resblocks.{n}.{name}" for n in range(blocks) for name in block),
        *("ln_post.weight", "ln_post.bias"),
    )


def encoder_names(blocks: int) -> tuple[str, ...]:
    """Tensors of a published image encoder: the vision tower amid the six text leftovers."""
    return (*TEXT_BEFORE, *(f"visual.{name}" for name in tower_names(blocks)), *TEXT_AFTER)
