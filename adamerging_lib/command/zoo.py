"""The subcommand ``adamerging zoo``: what it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..runtime.values import nearest
from ..worlds.profiles import profile
from ..worlds.tiny.tasks import SETTINGS

_SHIPPED = ("mini", "mini-text")


def train_zoo(
    name: str,
    *,
    device: str = "auto",
    models: str | None = None,
    bfloat16: bool = False,
    out: Path | None = None,
    workers: int | None = None,
    install: bool = False,
) -> None:
    """Train the models of a profile: a tiny one's experts and joint model, or all that mini and mini-text ship.

    Arguments:
        name: the profile.
        device: cpu, cuda or auto.
        models: some of a tiny profile's, ``A,B``; default: all.
        bfloat16: of a tiny profile: train in it.
        out: of mini and mini-text: work folder; default ``_build/zoo``.
        workers: of mini: processes that draw images; default 2.
        install: of mini and mini-text: replace what is shipped by the result.

    Raises:
        ValueError: for an unknown profile or model, or an option of the other kind of profile.
    """
    if name == "mini":
        _refuse({"--models": models, "--bfloat16": bfloat16}, "for tiny profiles: mini trains one model from the other")
        from ..worlds.mini.build import build

        build(out or Path("_build/zoo"), device, 2 if workers is None else workers, install)
        return
    if name == "mini-text":
        _refuse({"--models": models, "--bfloat16": bfloat16}, "for tiny profiles: mini-text trains all its models")
        _refuse({"--workers": workers}, "for the profile mini, which draws images: leave it out")
        from ..worlds.text.build import build as build_text

        build_text(out or Path("_build/zoo"), device, install)
        return
    if name not in SETTINGS:
        raise ValueError(f"profile {name!r} has no zoo: {_choice(name, (*_SHIPPED, *SETTINGS))}")
    _refuse({"--workers": workers}, "for the profile mini: leave it out")
    _refuse({"--out": out, "--install": install}, "for the profiles mini and mini-text: leave it out")
    known = (*profile(name).tasks, "joint")
    names = tuple(models.split(",")) if models else known
    if unknown := [each for each in names if each not in known]:
        raise ValueError(f"profile {name!r} has no model {unknown[0]!r}: {_choice(unknown[0], known)}")
    from ..worlds.tiny.build import build as build_tiny

    build_tiny(name, names, device, bfloat16=bfloat16)


def _refuse(options: Mapping[str, object], why: str) -> None:
    for option, value in options.items():
        if value:
            raise ValueError(f"{option} is {why}")


def _choice(name: str, known: Iterable[str]) -> str:
    return f"{nearest(name, known)}it has to be one of {', '.join(known)}"
