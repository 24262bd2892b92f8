"""The command ``adamerging``: merge checkpoint files, list the methods, look into a file."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence

import pandas as pd

from . import __version__
from .checkpoints import KINDS, convert
from .files.checkpoint import CheckpointFile
from .files.merge import Report, execute_merge
from .files.plan import Plan, plan_merge
from .methods.registry import NEEDS, find, hyper_parameters, methods
from .runtime.values import describe, parse
from .state import CheckpointError, is_finite, is_merged
from .worlds import zoo_command as zoo_command
from .worlds.clip import command as fetch_command
from .worlds.clip.hub import size

_EXAMPLE = """\
example:
  adamerging merge --method ties --pretrained base.safetensors \\
    --expert mnist=a.safetensors --expert svhn=b.safetensors --out merged.safetensors --set keep=0.2

All files are safetensors files of one architecture, any architecture; the experts were fine-tuned from the pretrained
one. A checkpoint in several files is named by its .safetensors.index.json or its folder. Nothing is ever overwritten
without --force, and the inputs never."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Arguments:
        arguments: of the command line; default: of this process.

    Returns:
        Exit code: 0, or 2 where the input must be mended first, which is said on stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # formulas, on a terminal without their letters
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except (ValueError, OSError) as error:
        print(f"adamerging {given.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("adamerging", description="Merge fine-tuned models of one architecture into one.")
    parser.add_argument("--version", action="version", version=f"adamerging_lib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    merge = commands.add_parser("merge", help="merge checkpoint files", epilog=_EXAMPLE, formatter_class=raw)
    merge.add_argument("--method", required=True, metavar="ID", help="as `adamerging methods --needs nothing` lists")
    merge.add_argument("--pretrained", required=True, metavar="FILE", help="what all experts were fine-tuned from")
    merge.add_argument(
        "--expert", required=True, action="append", dest="experts", metavar="NAME=FILE", help="once a fine-tuned model"
    )
    merge.add_argument(
        "--out", required=True, metavar="FILE", help="file to write; a folder, where the method keeps one model a task"
    )
    merge.add_argument(
        "--set", action="append", default=[], dest="pairs", metavar="NAME=VALUE",
        help="a hyper-parameter of the method, as `adamerging methods ID` lists",
    )  # fmt: skip
    merge.add_argument("--dry-run", action="store_true", help="read the headers only, say what would be done, and stop")
    merge.add_argument("--force", action="store_true", help="replace an output that exists")
    merge.set_defaults(run=_merge)

    convert = commands.add_parser("convert", help="a published checkpoint, of any format, as a safetensors file")
    convert.add_argument("source", metavar="IN", help="file or folder; nothing in it is executed")
    convert.add_argument("target", metavar="OUT", help=".safetensors file to write")
    convert.add_argument(
        "--kind", choices=KINDS, default="auto", help="state_dict keeps any model's tensors as they are"
    )
    convert.add_argument("--base", metavar="FILE", help="take the projection that IN lacks from this converted base")
    convert.add_argument("--force", action="store_true", help="replace OUT if it exists")
    convert.set_defaults(run=_convert)

    listing = commands.add_parser("methods", help="list the methods, or describe one")
    listing.add_argument("id", nargs="?", metavar="ID", help="describe this one, with its hyper-parameters")
    listing.add_argument("--needs", choices=NEEDS, help="only methods that need this beyond checkpoints")
    listing.set_defaults(run=_methods)

    fetch_command.add(commands)
    zoo_command.add(commands)

    look = commands.add_parser("inspect", help="what is in a checkpoint file")
    look.add_argument("file", metavar="FILE")
    look.add_argument("--tensors", action="store_true", help="list every tensor")
    look.set_defaults(run=_inspect)
    return parser


def _merge(given: argparse.Namespace) -> None:
    experts = []
    for text in given.experts:
        name, equals, path = text.partition("=")
        if not equals:
            raise ValueError(f"--expert {text} should read name=file, such as --expert mnist=mnist.safetensors")
        experts.append((name, path))
    known = hyper_parameters(find(given.method))
    hyper = parse(given.method, known, given.pairs)
    plan = plan_merge(given.method, given.pretrained, experts, given.out, force=given.force, **hyper)
    print(_told(plan), flush=True)
    if given.dry_run:
        print(_promised(plan))
        return
    report = execute_merge(plan)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(_result(report))
    memory = "" if report.memory is None else f", {size(report.memory)} of memory at the peak"
    print(f"in {report.seconds:.1f} s{memory}", file=sys.stderr)


def _told(plan: Plan) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in plan.hyper.items()) or "no hyper-parameters"
    layout = plan.pretrained.layout
    dtypes = sorted({str(layout[key].dtype).removeprefix("torch.") for key in plan.merged})
    copied = len(layout) - len(plan.merged)
    lines = [
        f"{plan.method.label} ({plan.method.id}) of {_count(len(plan.experts), 'expert')}: {settings}",
        f"{_count(len(plan.merged), 'tensor')}, {plan.parameters:,} parameters, {', '.join(dtypes)}"
        + (f"; {_count(copied, 'buffer')} copied from pretrained" if copied else ""),
    ]
    return "\n".join(lines)


def _promised(plan: Plan) -> str:
    how = "tensor by tensor" if plan.method.streams else "with all models loaded, which this method requires"
    lines = ["dry run: nothing was written; numbers will be checked when they are read", f"would merge {how},"]
    lines[-1] += f" with up to about {size(plan.memory)} of memory beyond the program's own"
    for path in plan.outputs.values():
        lines.append(f"would {'replace' if path in plan.replaces else 'write'} {path}, {size(plan.size)}")
    return "\n".join(lines)


def _result(report: Report) -> str:
    frame = report.experts
    table = pd.DataFrame(
        {
            "distance": frame["norm"].map("{:.3g}".format),
            "relative": frame["relative"].map("{:.2%}".format),
            "changed": frame["changed"].map("{:.1%}".format),
            "conflict": frame["conflict"].map("{:.1%}".format),
        },
        index=frame.index.rename("expert"),
    )
    if len(frame) > 1:
        table["nearest"] = [f"{c:.2f} {n}" for c, n in zip(frame["cosine"], frame["nearest"], strict=True)]
    lines = ["", _table(table), ""]
    lines.append("distance: norm of expert - pretrained; relative: to the norm of pretrained;")
    lines.append("changed: entries that differ; conflict: of these, moved against the sum of all")
    if len(frame) > 1:
        lines[-1] += ";"
        lines.append("nearest: largest cosine with another expert's difference from pretrained")
    if report.buffers:
        lines.append(f"copied from pretrained although an expert differs: {', '.join(report.buffers)}")
    lines += [f"wrote {path}, {size(path.stat().st_size)}" for path in report.plan.outputs.values()]
    return "\n".join(lines)


def _convert(given: argparse.Namespace) -> None:
    done = convert(given.source, given.target, kind=given.kind, base=given.base, force=given.force)
    print(f"{done.source} is {done.what}" + "".join(f", {name} {value}" for name, value in sorted(done.facts.items())))
    if done.dropped:
        entries = f"{len(done.dropped)} {'entry' if len(done.dropped) == 1 else 'entries'}"
        more = f" and {len(done.dropped) - 10} more, which the file's metadata name" if len(done.dropped) > 10 else ""
        print(f"dropped {entries}: {', '.join(done.dropped[:10])}{more}")
    print(f"wrote {done.target}, {_count(done.tensors, 'tensor')}, {done.numbers:,} numbers")


def _methods(given: argparse.Namespace) -> None:
    if given.id is None:
        table = methods()
        table = table[table["needs"] == given.needs] if given.needs else table
        command = [
            "no" if (m := find(id)).takes != "task_vectors" else "by tensor" if m.streams else "loads all"
            for id in table.index
        ]
        shown = table[["label", "needs", "task_specific", "source"]].rename(columns={"task_specific": "a task keeps"})
        shown.insert(2, "merge command", command)
        print(_table(shown))
        return
    method = find(given.id)
    print(f"{method.id}: {method.label} ({method.source}); needs {method.needs}; a task keeps {method.task_specific}\n")
    print(inspect.getdoc(getattr(method.function, "func", method.function)))
    print(f"\nHyper-parameters, with their defaults:\n{describe(hyper_parameters(method)) or '  none'}")


def _inspect(given: argparse.Namespace) -> None:
    file = CheckpointFile(given.file)
    layout = pd.DataFrame(
        [
            (key, str(t.dtype).removeprefix("torch."), list(t.shape), t.numel(), t.nbytes)
            for key, t in file.layout.items()
        ],
        columns=["tensor", "dtype", "shape", "numbers", "bytes"],
    )
    numbers, total = layout["numbers"].sum(), size(layout["bytes"].sum())
    print(f"{file.path}: {_count(len(layout), 'tensor')}, {numbers:,} numbers, {total}")
    for name, value in sorted(file.metadata.items()):
        print(f"  {name}: {value}")
    print(_table(layout.groupby("dtype").agg(tensors=("tensor", "count"), numbers=("numbers", "sum"))))
    if given.tensors:
        print(_table(layout[["tensor", "dtype", "shape"]].set_index("tensor")))
    if bad := [key for key, t in file.items() if is_merged(t) and not is_finite(t)]:
        raise CheckpointError(f"NaN or Inf in {', '.join(bad)}: the checkpoint is broken, save it again")
    print("all numbers are finite")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _table(frame: pd.DataFrame) -> str:
    """The index and columns of texts as lines, texts to the left and numbers to the right."""
    columns = []
    for name, values in frame.reset_index().items():
        cells = [str(name), *map(str, values)]
        side = str.rjust if all(cell[:1].isdigit() for cell in cells[1:]) else str.ljust
        columns.append([side(cell, max(map(len, cells))) for cell in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


if __name__ == "__main__":
    sys.exit(main())
