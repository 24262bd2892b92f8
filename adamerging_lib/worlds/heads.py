"""Frozen heads: class weights from prompts through the text tower, as in CLIP, or from the features of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def zero_shot_head(
    classes: Sequence[str],
    templates: Sequence[str],
    encode: Callable[[list[str]], Tensor],
    logit_scale: float,
) -> Tensor:
    """Classifier weights of one task: w_c = s · norm(mean_t norm(text(template_t(c)))).

    Arguments:
        classes: class names in label order.
        templates: prompts with ``{}`` for the class name.
        encode: the text tower, prompts → features ``[n, dim]``.
        logit_scale: s = exp of CLIP's learned logit scale.

    Returns:
        float32 ``[classes, dim]``; logits of features f are ``normalize(f) @ head.T``.

    Raises:
        ValueError: no class, no template, or a template without ``{}``.

    Source: Radford et al. 2021, Section 3.1.4.
    """
    if not classes or not templates:
        raise ValueError("a zero-shot head needs at least one class name and one template")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"template {template!r} has no {{}} for the class name")
    prompts = [template.format(name) for name in classes for template in templates]
    features = normalize(encode(prompts).float(), dim=-1).view(len(classes), len(templates), -1)
    return logit_scale * normalize(features.mean(1), dim=-1)


def prototype_head(features: Tensor, labels: Tensor, classes: int, logit_scale: float) -> Tensor:
    """Classifier weights of one task where there is no text tower: w_c = s · norm(mean_i norm(f_i)), i of class c.

    Arguments:
        features: of training images under the pretrained encoder, ``[n, dim]``.
        labels: their classes, ``[n]``.
        classes: how many there are.
        logit_scale: s.

    Returns:
        ``[classes, dim]``; logits of features f are ``normalize(f) @ head.T``.

    Raises:
        ValueError: naming classes without an image.

    Source: Snell et al. 2017 classify by the mean feature of each class.
    """
    counts = torch.bincount(labels, minlength=classes)
    if empty := (counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"classes {empty[:5]} of {classes} have no training image: a prototype needs at least one")
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, normalize(features, dim=-1))
    return logit_scale * normalize(sums / counts[:, None], dim=-1)
