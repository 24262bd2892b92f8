"""The command ``adamerging``: its subcommands and their options; what they do is loaded when one is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from . import __version__
from .command.line import call, positive

app = typer.Typer(
    help="Merge fine-tuned models of one architecture into one.",
    epilog="Examples:\n  adamerging methods --needs nothing\n  adamerging merge --help",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Method: TypeAlias = Annotated[str, typer.Option(metavar="ID", help="the method, as `adamerging methods` lists")]
Pairs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="a hyper-parameter of it, as `adamerging methods ID` lists"),
]
World: TypeAlias = Annotated[str, typer.Option("--profile", metavar="NAME", help="for which profile, such as clip-b32")]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda or auto")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and stop")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``adamerging``; see `command_line.call` for arguments and exit code."""
    return call(app, "adamerging", arguments)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"adamerging_lib {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="say the version, and stop")
    ] = False,
) -> None:
    pass


_MERGE = (
    "Example:\n"
    "  adamerging merge --method ties --pretrained base.safetensors \\\n"
    "    --expert mnist=a.safetensors --expert svhn=b.safetensors \\\n"
    "    --out merged.safetensors --set keep=0.2\n\n"
    "All files are safetensors files of one architecture, any architecture; the experts were fine-tuned from the "
    "pretrained one. A checkpoint in several files is named by its .safetensors.index.json or its folder. Nothing is "
    "ever overwritten without --force, and the inputs never."
)


@app.command(epilog=_MERGE)
def merge(
    method: Method,
    pretrained: Annotated[str, typer.Option(metavar="FILE", help="what all experts were fine-tuned from")],
    experts: Annotated[
        list[str], typer.Option("--expert", metavar="NAME=FILE", help="a fine-tuned model; once for each")
    ],
    out: Annotated[
        str, typer.Option(metavar="FILE", help="file to write; a folder, where the method keeps one model per task")
    ],
    pairs: Pairs = None,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="replace an output that exists")] = False,
) -> None:
    """Merge checkpoint files."""
    from .command.actions import merge_experts

    merge_experts(method, pretrained, experts, out, pairs or [], dry_run=dry_run, force=force)


_KIND = "auto, hf, task_vectors, head or state_dict, which keeps any model's tensors as they are"


@app.command(epilog="Example:\n  adamerging convert finetuned.pt mnist.safetensors")
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="file or folder; nothing in it is executed")],
    target: Annotated[str, typer.Argument(metavar="OUT", help=".safetensors file to write")],
    kind: Annotated[str, typer.Option(metavar="KIND", help=_KIND)] = "auto",
    base: Annotated[
        str | None, typer.Option(metavar="FILE", help="take the projection that IN lacks from this converted base")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace OUT if it exists")] = False,
) -> None:
    """Write a published checkpoint, of any format, as a safetensors file."""
    from .command.actions import convert_checkpoint

    convert_checkpoint(source, target, kind=kind, base=base, force=force)


_NEEDS = (
    "only methods that need this beyond checkpoints: nothing, 'unlabelled training images', 'unlabelled test images' "
    "or labels"
)


@app.command(epilog="Examples:\n  adamerging methods --needs nothing\n  adamerging methods ties")
def methods(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="describe this one, with its hyper-parameters")] = None,
    needs: Annotated[str | None, typer.Option(metavar="WHAT", help=_NEEDS)] = None,
) -> None:
    """List the methods, or describe one."""
    from .command.actions import describe_method, list_methods

    if id is None:
        list_methods(needs)
    else:
        describe_method(id)


_SPLITS = "of the data sets: test by default; test,train for methods that need training images, and for tiny-hub"
_FETCH = (
    "Examples:\n"
    "  adamerging fetch --profile clip-b32 --dry-run\n"
    "  adamerging fetch --profile tiny-hub --tasks mnist,eurosat\n\n"
    "The files go below $ADAMERGING_ASSETS (by default adamerging/assets of the user's cache folder), as they lie on "
    "the hub. An interrupted run is taken up by the next; files that are there are checked against the hub's digests, "
    "not fetched again, and never replaced without --force."
)


@app.command(epilog=_FETCH)
def fetch(
    profile: World,
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B", help="some of its tasks; by default the paper's eight")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="KIND", help="models or datasets: one of the two")] = None,
    splits: Annotated[str | None, typer.Option(metavar="A,B", help=_SPLITS)] = None,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="replace files that are not the hub's")] = False,
) -> None:
    """Fetch models and data sets of a profile from the hub."""
    from .command.fetch import fetch_profile

    fetch_profile(profile, tasks=tasks, only=only, splits=splits, dry_run=dry_run, force=force)


_ZOO = (
    "Examples:\n"
    "  adamerging zoo --profile tiny --bfloat16\n"
    "  adamerging zoo --profile mini --workers 2\n"
    "  adamerging zoo --profile mini-text\n\n"
    "The models of a tiny profile go below adamerging/zoo of the user's cache folder; images and pretrained weights "
    "are taken from $ADAMERGING_ASSETS, where `adamerging fetch --profile tiny-hub` puts what that profile needs. An "
    "interrupted run is taken up by the next. The profiles mini and mini-text ship their models; `--profile mini` "
    "trains them from nothing, into _build/zoo."
)


_WORKERS = "mini: processes that draw images; 2 by default"


@app.command(epilog=_ZOO)
def zoo(
    profile: World,
    models: Annotated[
        str | None, typer.Option(metavar="A,B", help="some of a tiny profile's: tasks, and joint; all by default")
    ] = None,
    device: Device = "auto",
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="tiny profiles: train in it, faster where the hardware has it")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="mini, mini-text: work folder; _build/zoo by default")
    ] = None,
    workers: Annotated[int | None, typer.Option(parser=positive, metavar="N", help=_WORKERS)] = None,
    install: Annotated[bool, typer.Option("--install", help="mini, mini-text: replace the shipped zoo")] = False,
) -> None:
    """Train the models of a profile on this machine."""
    from .command.zoo import train_zoo

    train_zoo(profile, device=device, models=models, bfloat16=bfloat16, out=out, workers=workers, install=install)


_ADAPT = (
    "Examples:\n"
    "  adamerging adapt --profile mini --out merged.safetensors\n"
    "  torchrun --nproc-per-node 2 -m adamerging_lib adapt --profile clip-b32 \\\n"
    "    --out merged.safetensors --set recipe=paper --set checkpoint=run.pt\n\n"
    "A run that is killed goes on from its checkpoint, where one is named."
)


@app.command(epilog=_ADAPT)
def adapt(
    profile: World,
    out: Annotated[Path, typer.Option(metavar="FILE", help=".safetensors file to write; coefficients go to a .json")],
    method: Method = "layer_wise_adamerging",
    tasks: Annotated[str | None, typer.Option(metavar="A,B", help="some of the profile's; all by default")] = None,
    pairs: Pairs = None,
    device: Device = "auto",
) -> None:
    """Learn the coefficients of a profile's task vectors, in one process or in several that torchrun starts."""
    from .command.adapt import adapt_profile

    adapt_profile(profile, out, method, tasks, pairs or [], device)


@app.command(epilog="Example:\n  adamerging inspect merged.safetensors --tensors")
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a checkpoint")],
    tensors: Annotated[bool, typer.Option("--tensors", help="list every tensor")] = False,
) -> None:
    """Say what is in a checkpoint file."""
    from .command.actions import inspect_file

    inspect_file(file, tensors)


if __name__ == "__main__":
    sys.exit(main())
