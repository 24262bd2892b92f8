"""Random views of training images: crop, turn and mirror by one affine map per image, and colours shifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What may change without changing the label.

    Arguments:
        mirror: left and right may be exchanged.
        turn: the image may be turned by quarters, and mirrored: it has no upright.
        zoom: the smallest side of a crop, as a share of the image's.
        shift: the largest shift beyond what the crop allows, as a share of the image's side; borders are reflected.
        rotation: the largest angle, degrees.
        colour: the largest relative change of brightness, contrast and saturation.
    """

    mirror: bool = False
    turn: bool = False
    zoom: float = 0.75
    shift: float = 0.05
    rotation: float = 5.0
    colour: float = 0.2


def augment(images: Tensor, plan: Augmentation, generator: torch.Generator) -> Tensor:
    """A random view of every image; a function of the generator's state alone, drawn on the CPU.

    Arguments:
        images: float ``[n, 3, size, size]``, normalised so that mid grey is 0.
        plan: what may change.
        generator: on the CPU.
    """
    import torch  # here, so that tables of tasks, which name a plan for each, are read without it
    from torch.nn.functional import affine_grid, grid_sample

    draws = torch.rand(len(images), 9, generator=generator)
    signed = (2 * draws - 1).unsqueeze(-1)  # [n, 9, 1]
    scale = plan.zoom + (1 - plan.zoom) * draws[:, 0]
    room = (1 - scale)[:, None] + 2 * plan.shift  # in units where the image spans −1 to 1
    angle = torch.deg2rad(plan.rotation * signed[:, 1, 0])
    if plan.turn:
        angle = angle + torch.pi / 2 * (4 * draws[:, 2]).floor()
    flip = torch.where((draws[:, 3] < 0.5) & (plan.mirror or plan.turn), -1.0, 1.0)
    maps = torch.empty(len(images), 2, 3)
    maps[:, 0, 0], maps[:, 0, 1] = scale * angle.cos() * flip, -scale * angle.sin()
    maps[:, 1, 0], maps[:, 1, 1] = scale * angle.sin() * flip, scale * angle.cos()
    maps[:, :, 2] = room * signed[:, 4:6, 0]
    grid = affine_grid(maps.to(images), list(images.shape), align_corners=False)
    views = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (plan.colour * signed[:, 6:9]).to(images).unbind(1)
    grey = views.mean(1, keepdim=True)
    views = grey + (1 + saturation)[..., None, None] * (views - grey)
    return (1 + contrast)[..., None, None] * views + brightness[..., None, None]
