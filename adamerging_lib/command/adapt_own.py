"""The subcommand ``adamerging adapt --model``: one's own model, checkpoints and data, to a merged model in a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader

from ..adapting.adapt import RECIPE, adapt
from ..adapting.adapted import check_free
from ..adapting.parts import Parts, take_apart
from ..adapting.readers import image_batches, text_batches
from ..evaluation import evaluate
from ..runtime.compat import import_timm
from ..runtime.distributed import group, leads
from ..runtime.values import Parameter, nearest, parse
from .line import json_object

_GIVEN = (
    "data", "logits", "private", "objective", "steps", "device", "checkpoint", "callback", "progress",
)  # fmt: skip
"""Arguments of `adapt` that have an option of their own, or none."""
SHOWN = ("task", "accuracy", "n", "entropy", "loss")


@dataclass(frozen=True)
class Own:
    """A model as it is named on the command line, and how its data is read.

    Arguments:
        model: the template.
        read: (path, labelled) → batches; what has labels is not shuffled.
    """

    model: nn.Module
    read: Callable[[Path, bool], DataLoader]


def adapt_own(
    model: str,
    pretrained: str | None,
    experts: Sequence[str],
    data: Sequence[str],
    out: Path,
    *,
    test: Sequence[str] = (),
    private: Sequence[str] = (),
    objective: str = "entropy",
    steps: int | None = None,
    batch_size: int = 16,
    columns: str | None = None,
    pairs: Sequence[str] = (),
    device: str = "auto",
    dry_run: bool = False,
    force: bool = False,
) -> None:
    """Learn coefficients for one's own model and write the result, going on where an earlier run was stopped.

    Arguments:
        model: ``timm:NAME`` or ``transformers:FOLDER``.
        pretrained: file or folder of θ0.
        experts, data, test: ``NAME=PATH`` each; ``test`` with labels, to be measured on.
        out: folder to write.
        private: patterns of names.
        objective: ``entropy``, ``imitation``, or a JSON object.
        steps: of Adam.
        batch_size: inputs per batch.
        columns: of texts, ``A`` or ``A,B``.
        pairs: ``name=value`` each, further arguments of `adapt`.
        device: cpu, cuda or auto.
        dry_run: say what would be done, and stop.
        force: replace an earlier result.

    Raises:
        ValueError: saying what to mend.
    """
    known = {
        name: Parameter(p.annotation, p.default)
        for name, p in inspect.signature(adapt).parameters.items()
        if p.kind is p.KEYWORD_ONLY and name not in _GIVEN
    }
    further = parse("adapt", known, pairs)
    if pretrained is None:
        raise ValueError("name the base that the experts were fine-tuned from: --pretrained FILE")
    places, paths, labelled = (_named(o, g) for o, g in (("--expert", experts), ("--data", data), ("--test", test)))
    if missing := [task for task in places if task not in paths]:
        raise ValueError(f"expert {missing[0]!r} has no data: give --data {missing[0]}=FOLDER_OR_FILE")
    if unknown := [task for task in (*paths, *labelled) if task not in places]:
        raise ValueError(f"{unknown[0]!r} is not an expert's name: {nearest(unknown[0], places)}give --expert for each")
    check_free(out, force)
    own = open_model(model, batch_size, columns.split(",") if columns else None)
    batches = {task: own.read(path, False) for task, path in paths.items()}
    tests = {task: own.read(path, True) for task, path in labelled.items()}
    goal = json_object(objective) if objective.lstrip().startswith("{") else objective
    if dry_run:
        parts = take_apart(own.model, pretrained, places, private)
        print(_told(parts, batches, RECIPE["steps"] if steps is None else steps, out))
        return
    run = out.with_name(f"{out.name}.run.safetensors")
    with group(device) as here:
        fit = adapt(
            own.model, pretrained, places, data=batches, private=private, objective=goal, steps=steps, device=here,
            checkpoint=run, **further,
        )  # fmt: skip
        if leads():
            fit.save(out, force=force)
            run.unlink(missing_ok=True)
            print(fit.explain())
            if tests:
                print(evaluate(fit, tests, device=here)[list(SHOWN)].to_string(index=False))
            print(f"{out}: {len(fit.history)} steps in {fit.seconds:.1f} s")


def open_model(name: str, batch_size: int, columns: Sequence[str] | None = None) -> Own:
    """A model by its name on the command line.

    Raises:
        ValueError: for an unknown kind, name or folder.
    """
    kind, _, rest = name.partition(":")
    if kind == "timm" and rest:
        timm = import_timm()
        if not timm.is_model(rest):
            raise ValueError(f"timm has no model {rest!r}: {nearest(rest, timm.list_models())}see timm.list_models()")
        if columns:
            raise ValueError("--columns is for texts: leave it out")
        model = timm.create_model(rest, pretrained=False)
        return Own(model, lambda path, labels: image_batches(path, model, batch_size=batch_size, shuffle=not labels))
    if kind == "transformers" and rest:
        return _transformers(Path(rest), batch_size, columns)
    raise ValueError(f"model {name!r} is of no known kind: give timm:NAME or transformers:FOLDER")


def _transformers(folder: Path, batch_size: int, columns: Sequence[str] | None) -> Own:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: name a folder that transformers' save_pretrained wrote")
    try:
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise ValueError("texts need transformers: pip install transformers") from error
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{folder} is not a sequence classifier with its tokenizer ({first}): save both there, model and tokenizer"
        ) from error

    def read(path: Path, labelled: bool) -> DataLoader:
        return text_batches(
            path, tokenizer, columns=columns, labels=getattr(config, "label2id", None), labelled=labelled,
            batch_size=batch_size, shuffle=not labelled,
        )  # fmt: skip

    return Own(model, read)


def _named(option: str, given: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ValueError(f"{option} {text!r} should read NAME=PATH")
        if name in found:
            raise ValueError(f"{option} names {name!r} twice: give it once")
        found[name] = Path(path)
    return found


def _told(parts: Parts, batches: Mapping[str, DataLoader], steps: int, out: Path) -> str:
    tv = parts.tv
    own = {task: sum(t.numel() for t in part.values()) for task, part in parts.private.items()}
    lines = [
        f"merged: {len(tv.vectors)} tensors, {sum(tv.pretrained[key].numel() for key in tv.vectors):,} numbers",
        f"statistics: {len(next(iter(parts.statistics.values())))} tensors, averaged, and made anew at the end",
        f"steps: {steps}",
    ]
    for task, loader in batches.items():
        lines.append(f"{task}: {len(loader.dataset)} inputs in {len(loader)} batches, {own[task]:,} private numbers")
    return "\n".join([*lines, f"to {out}; nothing was written"])
