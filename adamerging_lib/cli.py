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

Method: TypeAlias = Annotated[str, typer.Option(metavar="ID", help="the method, one of `adamerging methods`")]
Pairs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="a hyper-parameter of the method, see `adamerging methods ID`"),
]
World: TypeAlias = Annotated[str, typer.Option("--profile", metavar="NAME", help="the profile, such as clip-b32")]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda or auto")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="show what would be done, and exit")]


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
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="show the version, and exit")
    ] = False,
) -> None:
    pass


_MERGE = (
    "Example:\n"
    "  adamerging merge --method ties --pretrained base.safetensors \\\n"
    "    --expert mnist=a.safetensors --expert svhn=b.safetensors \\\n"
    "    --out merged.safetensors --set keep=0.2\n\n"
    "All files are safetensors files of one architecture, whichever it is; the experts were fine-tuned from the "
    "pretrained model. For a checkpoint in several files, name its .safetensors.index.json or its folder. An expert "
    "can be the folder of a LoRA adapter (peft) of the pretrained model. If the models do not fit together, the "
    "message says which of --drop, --strip and --cast makes them fit. Nothing is overwritten without --force, and the "
    "inputs never are."
)

_DROP = "leave tensors out of all models and of the result, such as 'classifier.*'; may be given more than once"
_STRIP = "remove a prefix from the names where most have it, such as model.; may be given more than once"


@app.command(epilog=_MERGE)
def merge(
    method: Method,
    pretrained: Annotated[str, typer.Option(metavar="FILE", help="what all experts were fine-tuned from")],
    experts: Annotated[
        list[str],
        typer.Option(
            "--expert", metavar="NAME=FILE", help="a fine-tuned model, or the folder of a LoRA adapter; repeat for each"
        ),
    ],
    out: Annotated[
        str, typer.Option(metavar="FILE", help="file to write; a folder if the method keeps one model per task")
    ],
    pairs: Pairs = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help=_DROP)] = None,
    strip: Annotated[list[str] | None, typer.Option(metavar="PREFIX", help=_STRIP)] = None,
    cast: Annotated[bool, typer.Option("--cast", help="cast experts to the types of the pretrained model")] = False,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="replace an existing output")] = False,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="experts are LoRA adapters: write one adapter, a folder")
    ] = False,
    rank: Annotated[
        int | None, typer.Option(parser=positive, metavar="R", help="with --adapter: truncate it to this rank")
    ] = None,
) -> None:
    """Merge checkpoint files."""
    from .command.actions import merge_experts
    from .files.align import Options

    options = Options.of(drop or (), strip or (), cast)
    merge_experts(
        method, pretrained, experts, out, pairs or [], options=options, dry_run=dry_run, force=force, adapter=adapter,
        rank=rank,
    )  # fmt: skip


_CHECK = (
    "Example:\n"
    "  adamerging check --pretrained base.safetensors \\\n"
    "    --expert mnist=a.safetensors --expert svhn=b.safetensors\n\n"
    "Files, folders and adapters, as for merge; every tensor is read once. Exit code: 0 if nothing is wrong, 1 "
    "after warnings, 2 if the models cannot or should not be merged. Without --pretrained, less can be checked."
)


@app.command(epilog=_CHECK)
def check(
    experts: Annotated[list[str], typer.Option("--expert", metavar="NAME=FILE", help="a model; repeat for each")],
    pretrained: Annotated[
        str | None, typer.Option(metavar="FILE", help="what all experts were fine-tuned from")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help=_DROP)] = None,
    strip: Annotated[list[str] | None, typer.Option(metavar="PREFIX", help=_STRIP)] = None,
    cast: Annotated[bool, typer.Option("--cast", help="cast experts to the types of the pretrained model")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON, for programs")] = False,
) -> None:
    """Find out what is wrong with models before they are merged, and how to merge them."""
    from .command.check import check_experts
    from .files.align import Options

    if code := check_experts(pretrained, experts, Options.of(drop or (), strip or (), cast), json=as_json):
        raise typer.Exit(code)


_KIND = "auto, hf, task_vectors, head, adapter or state_dict, which keeps any model's tensors as they are"


_KEY = "the entry of IN that holds the weights, such as model.ema; . means all of IN; by default the only entry"
_LEFT_OUT = "with state_dict: leave tensors out, such as 'classifier.*'; may be given more than once"
_SHORTENED = "with state_dict: remove a prefix from the names, such as model."
_CONVERT = (
    "Examples:\n"
    "  adamerging convert finetuned.pt mnist.safetensors\n"
    "  adamerging convert --kind state_dict --key net last.ckpt mnist.safetensors\n"
    "  adamerging convert --kind state_dict folder/ folder/model.safetensors"
)


@app.command(epilog=_CONVERT)
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="file or folder; nothing in it is executed")],
    target: Annotated[str, typer.Argument(metavar="OUT", help=".safetensors file to write")],
    kind: Annotated[str, typer.Option(metavar="KIND", help=_KIND)] = "auto",
    base: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="the base of an adapter, to merge it into; or of an encoder without a projection"
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="NAME", help=_KEY)] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help=_LEFT_OUT)] = None,
    strip: Annotated[str | None, typer.Option(metavar="PREFIX", help=_SHORTENED)] = None,
    force: Annotated[bool, typer.Option("--force", help="replace OUT if it exists")] = False,
) -> None:
    """Write a published checkpoint, of any format, as a safetensors file."""
    from .command.actions import convert_checkpoint

    convert_checkpoint(source, target, kind=kind, base=base, key=key, drop=drop or (), strip=strip, force=force)


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
    "The files go below $ADAMERGING_ASSETS (by default adamerging/assets in the user's cache folder), laid out as on "
    "the hub. After an interruption, run the command again to resume; files that are there are checked against the "
    "hub's digests, not fetched again, and never replaced without --force."
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
    force: Annotated[bool, typer.Option("--force", help="replace files that differ from the hub's")] = False,
) -> None:
    """Fetch the models and data sets of a profile from the hub."""
    from .command.fetch import fetch_profile

    fetch_profile(profile, tasks=tasks, only=only, splits=splits, dry_run=dry_run, force=force)


_ZOO = (
    "Examples:\n"
    "  adamerging zoo --profile tiny --bfloat16\n"
    "  adamerging zoo --profile mini --workers 2\n"
    "  adamerging zoo --profile mini-text\n\n"
    "The models of a tiny profile go below adamerging/zoo in the user's cache folder; images and pretrained weights "
    "are taken from $ADAMERGING_ASSETS, where `adamerging fetch --profile tiny-hub` puts what that profile needs. "
    "After an interruption, run the command again to resume. The profiles mini and mini-text ship their models; "
    "`--profile mini` trains them from scratch, into _build/zoo."
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
        bool, typer.Option("--bfloat16", help="tiny profiles: train in bfloat16, faster where the hardware has it")
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
    "  adamerging adapt --model timm:resnet18 --pretrained base.pth --private 'fc.*' \\\n"
    "    --expert pets=pets.pth --expert food=food.pth --data pets=pets/ --data food=food/ --out merged\n"
    "  adamerging adapt --model transformers:bert/ --pretrained bert/ --private 'classifier.*' \\\n"
    "    --expert mood=mood/ --expert topic=topic/ --data mood=mood.csv --data topic=topic.txt --out merged\n"
    "  adamerging adapt --profile mini --out merged.safetensors\n"
    "  torchrun --nproc-per-node 2 -m adamerging_lib adapt --profile clip-b32 \\\n"
    "    --out merged.safetensors --set recipe=paper --set checkpoint=run.pt\n\n"
    "--model learns by entropy, as published. For the recipe that the book recommends (imitation of the experts, one "
    "coefficient per component of TSV-M) add --objective imitation --steps 100 --set vectors=tsv --set "
    "granularity=component --set lr=0.03.\n\n"
    "An interrupted run of --model resumes when it is started again; one of --profile resumes from its checkpoint, if "
    "one is named. Data needs no labels; --test does: one folder of images per class, or a column 'label'. Nothing in "
    "the given files is executed."
)
_OUT = "--model: folder to write; --profile: .safetensors file, coefficients go to a .json"
_DATA = "unlabelled: folder of images, or .txt, .csv, .tsv, .json or .jsonl of texts; repeat for each expert"
_SET = "--profile: a hyper-parameter of the method; --model: a further argument of am.adapt, such as statistics=batch"
Named: TypeAlias = Annotated[
    list[str] | None, typer.Option("--expert", metavar="NAME=PATH", help="--model: an expert; repeat for each")
]


@app.command(epilog=_ADAPT)
def adapt(
    out: Annotated[Path, typer.Option(metavar="PATH", help=_OUT)],
    profile: Annotated[str | None, typer.Option(metavar="NAME", help="a world of this library, such as mini")] = None,
    method: Annotated[str | None, typer.Option(metavar="ID", help="--profile: the method")] = None,
    tasks: Annotated[str | None, typer.Option(metavar="A,B", help="--profile: some of its tasks")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="KIND:NAME", help="your own: timm:NAME or transformers:FOLDER")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(metavar="PATH", help="--model: what all experts were fine-tuned from")
    ] = None,
    experts: Named = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help=f"--model: {_DATA}")] = None,
    test: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="--model: labelled data to measure the result on")
    ] = None,
    private: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="--model: tensors that each task keeps, such as 'fc.*'")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="--model: entropy, imitation, or a JSON object"),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="--model: steps of Adam; 500 by default")] = None,
    batch_size: Annotated[
        int | None, typer.Option(parser=positive, metavar="N", help="--model: inputs per batch; 16 by default")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="--model: column of the text, or columns of a pair")
    ] = None,
    pairs: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET)] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="--model: replace an earlier result")] = False,
) -> None:
    """Learn merging coefficients from unlabelled data, for your own model or in a world; torchrun spreads the tasks."""
    from .command.adapt import adapt_profile, choose

    own = {
        "--pretrained": pretrained, "--expert": experts, "--data": data, "--test": test, "--private": private,
        "--objective": objective, "--steps": steps, "--batch-size": batch_size, "--columns": columns,
        "--dry-run": dry_run, "--force": force,
    }  # fmt: skip
    choose(profile, model, own, {"--method": method, "--tasks": tasks})
    if profile is not None:
        adapt_profile(profile, out, method or "layer_wise_adamerging", tasks, pairs or [], device)
        return
    from .command.adapt_own import adapt_own

    adapt_own(
        model, pretrained, experts or [], data or [], out, test=test or [], private=private or [],
        objective=objective or "entropy", steps=steps, batch_size=batch_size or 16, columns=columns,
        pairs=pairs or [], device=device, dry_run=dry_run, force=force,
    )  # fmt: skip


@app.command(epilog="Example:\n  adamerging inspect merged.safetensors --tensors")
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a checkpoint")],
    tensors: Annotated[bool, typer.Option("--tensors", help="list every tensor")] = False,
) -> None:
    """Show what is in a checkpoint file."""
    from .command.actions import inspect_file

    inspect_file(file, tensors)


if __name__ == "__main__":
    sys.exit(main())
