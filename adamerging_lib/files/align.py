"""Making models fit together before they are merged: their names, their types, and tensors that only some store.

What changes nothing is done and said; what a person must decide is refused with the options that decide it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..runtime.values import few
from ..state import CheckpointError, StateDict, check_state_dicts, is_finite, is_merged, narrowed
from .kinds import MANY, is_constant, is_copied, is_counter, is_derived, layout_of, quantised, same_bits, sample
from .names import dropped, strip

ZERO_3 = (
    "DeepSpeed's ZeRO-3 saved them without gathering: run `python zero_to_fp32.py . weights` in the folder of its "
    "checkpoint, where DeepSpeed put that script, and merge what it writes"
)


class View(Mapping[str, Tensor]):
    """A model under other names and types, with tensors of other models where it lacks them; read when asked for.

    Arguments:
        state: the model, a state dict or a file; a file's path, parts and digests stay those of the view.
        sources: name → the model that the tensor is read from, and its name there.
        dtypes: name → type that it is cast to.
    """

    def __init__(
        self, state: StateDict, sources: Mapping[str, tuple[StateDict, str]], dtypes: Mapping[str, torch.dtype]
    ) -> None:
        self._state, self._sources, self._dtypes = state, sources, dtypes
        self.layout: dict[str, Tensor] = {}
        """Tensor name → tensor on ``meta``: shape and dtype."""
        for name, (owner, key) in sources.items():
            tensor = layout_of(owner)[key]
            self.layout[name] = torch.empty(tensor.shape, dtype=dtypes.get(name, tensor.dtype), device="meta")
        if hasattr(state, "difference"):  # asked for where it is there, see `state.differences`
            self.difference = self._difference

    def __getitem__(self, name: str) -> Tensor:
        owner, key = self._sources[name]
        tensor = owner[key]
        if name not in self._dtypes:
            return tensor
        cast = narrowed(tensor, self._dtypes[name])
        if is_finite(tensor) and not is_finite(cast):
            raise CheckpointError(
                f"{name!r} is too large for {_plain(cast.dtype)}, which it would be cast to: cast pretrained to "
                f"{_plain(tensor.dtype)} instead, and save it again"
            )
        return cast

    @property
    def state(self) -> StateDict:
        """The model that is seen."""
        return self._state

    def _difference(self, name: str) -> Tensor | None:
        owner, key = self._sources[name]
        return self._state.difference(key) if owner is self._state else None

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def formats(self) -> dict[str, str]:
        """Tensor name → dtype as safetensors calls it, as the file has it."""
        return {name: owner.formats[key] for name, (owner, key) in self._sources.items()}

    @property
    def path(self) -> Path:
        return self._state.path

    @property
    def files(self) -> tuple[Path, ...]:
        return self._state.files

    def digests(self) -> dict[str, str]:
        """File name → SHA-256, of the file or of its parts."""
        return self._state.digests()


@dataclass(frozen=True)
class Options:
    """What a person decided about tensors that do not fit.

    Arguments:
        drop: patterns of names to be left out of every model, and so of the result; see `names.dropped`.
        strip: prefixes to be taken off the names of the models in which all names, or most, have it.
        cast: whether the floats of experts are cast to the types of θ0's.
    """

    drop: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()
    cast: bool = False

    @classmethod
    def of(cls, drop: Iterable[str] | str = (), strip: Iterable[str] | str = (), cast: bool = False) -> Options:
        """The options as given, each one text or several."""
        return cls(*((one,) if isinstance(one, str) else tuple(one) for one in (drop, strip)), bool(cast))

    @property
    def command(self) -> str:
        """As words of the command ``adamerging merge``."""
        words = [f"--{name} {shlex.quote(text)}" for name in ("strip", "drop") for text in getattr(self, name)]
        return " ".join(words + ["--cast"] * self.cast)

    @property
    def python(self) -> str:
        """As arguments of `merge_files` and `TaskVectors.from_state_dicts`."""
        given = [f"{name}={list(texts)!r}" for name in ("strip", "drop") if (texts := getattr(self, name))]
        return ", ".join(given + ["cast=True"] * self.cast)


class Misfit(CheckpointError):
    """Models that do not fit together.

    Arguments:
        said: the message.
        options: with which they do; None where no options help.
    """

    def __init__(self, said: str, options: Options | None = None) -> None:
        super().__init__(said)
        self.options = options


@dataclass(frozen=True)
class Aligned:
    """Models that fit together.

    Arguments:
        pretrained: θ0.
        experts: task → θ_k, with the keys and shapes of θ0, and the dtypes of all its floats.
        notes: what was done to make them fit, as sentences.
    """

    pretrained: StateDict
    experts: dict[str, StateDict]
    notes: tuple[str, ...]


_KEYS = ("missing", "unexpected")


@dataclass(frozen=True)
class _Problem:
    task: str
    name: str
    kind: str  # missing, unexpected, shape, dtype
    said: str = ""  # of the latter two, beginning with the word


@dataclass
class _Fitted:
    task: str
    sources: dict[str, tuple[StateDict, str]]
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[_Problem] = field(default_factory=list)


def align(pretrained: StateDict, experts: Mapping[str, StateDict], options: Options | None = None) -> Aligned:
    """Models that can be merged: the same names and shapes, every float of the type that θ0's has.

    Handled where it changes nothing: buffers of whole numbers that are missing or of another type, tensors that a
    library derives from its configuration, and a float tensor that only some models store and that is equal to another
    of the same model.

    Arguments:
        pretrained: θ0, a state dict or a file.
        experts: task name → θ_k.
        options: what a person decided.

    Returns:
        The models, those as given that fit as they are; nothing is read but tensors that not all models store.

    Raises:
        CheckpointError: naming the expert and the tensors, and the options that let the merge go on.
        ValueError: for a prefix or a pattern that fits no name.
    """
    options = options or Options()
    check_state_dicts(pretrained, experts)
    models = {None: pretrained, **experts}
    names = _named(models, options)
    for task, state in models.items():
        _refuse_unmergeable(task, {new: layout_of(state)[old] for new, old in names[task].items()})
    fitted = [_fit(models, names, task, options.cast) for task in experts]
    if problems := [problem for one in fitted for problem in one.problems]:
        raise _misfit(models, problems, options)
    base = {new: (pretrained, old) for new, old in names[None].items()}
    notes = _renamed(models, names, options)
    return Aligned(
        _seen(pretrained, base, {}),
        {one.task: _seen(experts[one.task], one.sources, one.dtypes) for one in fitted},
        (*notes, *(note for one in fitted for note in one.notes)),
    )


def owner_of(task: str | None) -> str:
    """What messages call a model."""
    return "pretrained" if task is None else f"expert {task!r}"


def _seen(state: StateDict, sources: dict[str, tuple[StateDict, str]], dtypes: dict[str, torch.dtype]) -> StateDict:
    if not dtypes and list(sources) == list(state) and all(s is state and n == key for n, (s, key) in sources.items()):
        return state
    view = View(state, sources, dtypes)
    return view if hasattr(state, "layout") else dict(view)


def _named(models: Mapping[str | None, StateDict], options: Options) -> dict[str | None, dict[str, str]]:
    """Model → new name → its name there."""
    names = {task: {key: key for key in layout_of(state)} for task, state in models.items()}
    for prefix in options.strip:
        names = _without_prefix(names, prefix)
    if options.drop:
        gone = dropped(dict.fromkeys(name for own in names.values() for name in own), options.drop)
        names = {task: {new: old for new, old in own.items() if new not in gone} for task, own in names.items()}
    return names


def _without_prefix(names: dict[str | None, dict[str, str]], prefix: str) -> dict[str | None, dict[str, str]]:
    """A model may keep its names where the others then agree better with it; where both do, the prefix goes."""
    ways: dict[str | None, list[dict[str, str]]] = {}
    errors = []
    for task, own in names.items():
        ways[task] = [own]
        try:
            ways[task].insert(0, {new: own[old] for new, old in strip(own, prefix).items()})
        except ValueError as error:
            errors.append(error)
    if len(errors) == len(names):
        raise errors[0]
    base, *tasks = names

    def best(way: dict[str, str], task: str | None) -> tuple[int, dict[str, str]]:
        return min(((len(way.keys() ^ own.keys()), own) for own in ways[task]), key=lambda pair: pair[0])

    found = [(sum(best(way, task)[0] for task in tasks), way) for way in ways[base]]
    way = min(found, key=lambda pair: pair[0])[1]
    return {base: way, **{task: best(way, task)[1] for task in tasks}}


def _refuse_unmergeable(task: str | None, layout: Mapping[str, Tensor]) -> None:
    if told := quantised(layout):
        raise CheckpointError(
            f"{owner_of(task)} is quantised ({told}), and codes cannot be averaged: merge the unquantised models, then "
            f"quantise the result"
        )
    floats = {name: t for name, t in layout.items() if is_merged(t)}
    empty = [name for name, t in floats.items() if not t.numel()]
    partitioned = 2 * len(empty) > len(floats) and not any(t.dim() > 1 and t.numel() for t in floats.values())
    if floats and partitioned:
        raise CheckpointError(
            f"{owner_of(task)} has no entries in {few(empty)} (shape {list(layout[empty[0]].shape)}). {ZERO_3}"
        )


def _fit(
    models: Mapping[str | None, StateDict], names: Mapping[str | None, dict[str, str]], task: str, cast: bool
) -> _Fitted:
    """Where each tensor of an expert comes from, once it has the names of θ0."""
    base, state, theirs, mine = models[None], models[task], names[None], names[task]
    layout, own = layout_of(base), layout_of(state)
    fitted, taken, twins = _Fitted(task, {}), [], []
    for name, old in theirs.items():
        if name in mine and (said := _mismatch(own[mine[name]], layout[old])) is None:
            fitted.sources[name] = (state, mine[name])
        elif is_copied(name, layout[old]) and (name not in mine or _of_no_matter(name, own[mine[name]], layout[old])):
            fitted.sources[name] = (base, old)
            taken.append(name)
        elif name not in mine:
            if twin := _twin(base, theirs, name, mine):
                fitted.sources[name] = (state, mine[twin])
                twins.append(f"{name} ({twin} stands for it)")
            else:
                fitted.problems.append(_Problem(task, name, "missing"))
        elif cast and said.startswith("dtype") and is_merged(own[mine[name]]) and is_merged(layout[old]):
            fitted.sources[name], fitted.dtypes[name] = (state, mine[name]), layout[old].dtype
        else:
            fitted.problems.append(_Problem(task, name, said.partition(" ")[0], said))
    left = [name for name in mine if name not in theirs]
    for name in left:
        if not (is_copied(name, own[mine[name]]) or _twin(state, mine, name, theirs)):
            fitted.problems.append(_Problem(task, name, "unexpected"))
    said = {
        "lacks, or has otherwise, what is copied from pretrained anyway": taken,
        "lacks what pretrained stores twice": twins,
        "has what pretrained lacks and can do without, left out": left,
    }
    fitted.notes += [f"expert {task!r} {what}: {few(found)}" for what, found in said.items() if found]
    for kind, count in _counted(_plain(own[mine[name]].dtype) for name in fitted.dtypes):
        fitted.notes.append(f"expert {task!r}: {count} tensors cast from {kind} to the types of pretrained")
    return fitted


def _mismatch(tensor: Tensor, reference: Tensor) -> str | None:
    """How the shape or the type of a tensor is none that can be merged with θ0's; whole numbers may be of any type."""
    if tensor.shape != reference.shape:
        return f"shape {list(tensor.shape)}, pretrained has {list(reference.shape)}"
    if tensor.dtype == reference.dtype or not (is_merged(tensor) or is_merged(reference)):
        return None
    return f"dtype {_plain(tensor.dtype)}, pretrained has {_plain(reference.dtype)}"


def _of_no_matter(name: str, tensor: Tensor, reference: Tensor) -> bool:
    """Whether a tensor that differs from θ0's in shape or type is one that θ0's can stand for."""
    small = not is_merged(tensor) and reference.numel() < MANY
    return is_derived(name, reference) or is_counter(name) or small


def _twin(state: StateDict, names: Mapping[str, str], name: str, among: Collection[str]) -> str | None:
    """Another tensor of a model that is equal to the one of this name: the head that is tied to an embedding."""
    layout, old = layout_of(state), names[name]
    alike = [
        other
        for other, key in names.items()
        if other != name
        and other in among
        and (layout[key].shape, layout[key].dtype) == (layout[old].shape, layout[old].dtype)
    ]
    if not alike or is_constant(tensor := state[old]):
        return None
    found = sample(tensor)
    return next((o for o in alike if sample(state[names[o]]) == found and same_bits(state[names[o]], tensor)), None)


def _counted(items: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return list(counts.items())


def _renamed(
    models: Mapping[str | None, StateDict], names: Mapping[str | None, dict[str, str]], options: Options
) -> list[str]:
    notes = []
    if options.strip:
        changed = [owner_of(task) for task, own in names.items() if any(new != old for new, old in own.items())]
        notes.append(f"{', '.join(options.strip)} taken off the names of {', '.join(changed)}")
    if options.drop:
        kept = _named(models, replace(options, drop=()))
        gone = dict.fromkeys(name for task, own in kept.items() for name in own if name not in names[task])
        notes.append(f"dropped, and not in the result: {few(list(gone))}")
    return notes


def _misfit(models: Mapping[str | None, StateDict], problems: list[_Problem], options: Options) -> Misfit:
    """What does not fit, and the options with which it would."""
    first = problems[0]
    if first.kind in ("shape", "dtype"):
        said = f"{first.name!r} of expert {first.task!r} has {first.said}"
    else:
        own = {kind: [p.name for p in problems if (p.task, p.kind) == (first.task, kind)] for kind in _KEYS}
        lists = ", ".join(f"{kind} {few(sorted(names))}" for kind, names in own.items())
        said = f"expert {first.task!r} and pretrained have different keys: {lists}"
    if "[0]" in first.said:
        return Misfit(f"{said}; tensors of shape [0] are empty. {ZERO_3}")
    mend = _mend(models, problems, options)
    if mend is None:
        return Misfit(
            f"{said}; too little is left that fits: give the pretrained model that this expert was fine-tuned from"
        )
    rows = re.fullmatch(r"shape \[(\d+)(.*)\], pretrained has \[(\d+)(.*)\]", first.said)
    if rows and rows[2] == rows[4]:
        said += (
            f": another vocabulary or head. Give all models {max(int(rows[1]), int(rows[3]))} rows first (a "
            f"vocabulary, in transformers, by model.resize_token_embeddings), or leave it out"
        )
    lacking = "; the result then lacks what is dropped" if mend.drop else ""
    return Misfit(f"{said}; this goes on: {mend.command} (from Python {mend.python}){lacking}", mend)


def _mend(models: Mapping[str | None, StateDict], problems: list[_Problem], options: Options) -> Options | None:
    """Options with which these models fit; None where most of them would be dropped."""
    names, tasks = _named(models, options), [task for task in models if task is not None]
    for task in dict.fromkeys(problem.task for problem in problems):
        prefix = _prefix(names[None], names[task])
        if prefix and prefix not in options.strip:
            options = replace(options, strip=(*options.strip, prefix))
    names = _named(models, options)
    left = [problem for task in tasks for problem in _fit(models, names, task, options.cast).problems]
    cast = [problem for task in tasks for problem in _fit(models, names, task, True).problems]
    if len(cast) < len(left):
        options, left = replace(options, cast=True), cast
    gone = {problem.name for problem in left}
    patterns = _patterns(gone, {name for own in names.values() for name in own})
    layout = layout_of(models[None])
    floats = [new for new, old in names[None].items() if is_merged(layout[old]) and layout[old].numel()]
    if 2 * len(gone & set(floats)) > len(floats):
        return None
    return replace(options, drop=(*options.drop, *patterns))


def _prefix(base: Collection[str], other: Collection[str]) -> str | None:
    """What stands before most names of one of two models, and before none of the other's."""
    shared = len(set(base) & set(other))
    for short, long in ((base, other), (other, base)):
        for name in list(short)[:50]:
            for found in (full[: -len(name)] for full in long if full.endswith(f".{name}")):
                if len({found + key for key in short} & set(long)) > shared + len(short) // 2:
                    return found
    return None


def _patterns(names: set[str], everything: set[str]) -> list[str]:
    """Patterns that fit these names and no others, as short as can be."""
    patterns: dict[str, None] = {}
    for name in sorted(names):
        parts = name.split(".")
        starts = (".".join(parts[:count]) + "." for count in range(1, len(parts)))
        whole = next((s for s in starts if {n for n in everything if n.startswith(s)} <= names), None)
        patterns[name if whole is None or set(whole) & set("*?[") else f"{whole}*"] = None
    return list(patterns)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
