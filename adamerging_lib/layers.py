"""What the name of a tensor tells: which block it lies in, how deep that block lies, and what the tensor does there.

`SCHEMES` is the one table of names, and all code that needs them asks here. A row says how a family of models names its
tensors:

* ``models``: whose names these are, for the reader.
* ``blocks``: where a block lies. ``N`` ends a level that counts blocks: ``blocks.N`` and ``layerN.N`` have one and two,
  and in ``stages.N.blocks.N`` the second number may start again in every stage. ``n`` is a number inside a block, which
  does not count: T5's ``block.N.layer.n`` is block N, whichever of its sublayers. What stands before (``model.``,
  ``vision_model.encoder.``) is not written.
* ``attention_in``, ``attention_out``, ``mlp_in``, ``mlp_out``: modules inside a block that read the residual stream and
  write to it. Braces list several: ``self_attn.{q,k,v}_proj``. A module that ends in ``_`` is joined to ``weight`` and
  ``bias`` without a dot, as torch does it in ``in_proj_weight``.
* ``before``: modules and tensors ahead of the blocks, by one word of their names. Whatever else lies outside the blocks
  comes after them.
* ``stacked``: one tensor holds the rows of queries, keys and values, in three equal parts.
* ``transposed``: matrices are ``[in, out]``.

To read the names of another family, add its row; every column but the first two may stay empty:

    Scheme("timm: NesT", "levels.N.transformer_encoder.N", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", stacked=True)

Rows whose ``blocks`` are the same share their depths, and a tensor's role is told by the first of them that knows its
module.

Depth. Blocks that share what stands before their first number are one stack, and are counted from 0 in the order of
their numbers, stage after stage. Each stack has depths of its own: encoder and decoder, or an image and a language
model. Beside an image tower named ``visual`` or ``vision_model`` the text tower of CLIP, and what has no number, is
text, without a depth. Linear maps in a row (``layers.N.weight``) are not a stack where there are others. A module of a
stage beside its blocks (``downsample``) goes with the stage's first block, or with its last where the first stage has
one too, and it therefore ends a stage. Refused are names without blocks, two ways of numbering side by side, and
numbered levels that look like blocks but that no row describes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise


@dataclass(frozen=True)
class Scheme:
    """A row of `SCHEMES`; see the head of this module."""

    models: str
    blocks: str
    attention_in: str = ""
    attention_out: str = ""
    mlp_in: str = ""
    mlp_out: str = ""
    before: str = ""
    stacked: bool = False
    transposed: bool = False


# fmt: off
SCHEMES = (
    Scheme("open_clip", "resblocks.N", "attn.in_proj_", "attn.out_proj", "mlp.c_fc", "mlp.c_proj",
           before="class_embedding positional_embedding token_embedding conv1 ln_pre", stacked=True),
    Scheme("timm: ViT, DeiT, DINOv2", "blocks.N", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2",
           before="cls_token reg_token dist_token pos_embed patch_embed norm_pre stem", stacked=True),
    Scheme("DINOv2 in chunks, EfficientNet", "blocks.N.N", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2",
           before="conv_stem bn1 mask_token register_tokens patch_embeds", stacked=True),
    Scheme("timm: Swin", "layers.N.blocks.N", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", stacked=True),
    Scheme("timm: ConvNeXt, MViT, PVT, LeViT", "stages.N.blocks.N", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2",
           stacked=True),
    Scheme("timm and torchvision: ResNet", "layerN.N"),
    Scheme("timm: ResNet and others by ByobNet", "stages.N.N"),
    Scheme("timm: RegNet", "sN.bN"),
    Scheme("torchvision: ViT", "layers.encoder_layer_N", "self_attention.in_proj_", "self_attention.out_proj", "mlp.0",
           "mlp.3", before="conv_proj class_token pos_embedding", stacked=True),
    Scheme("torch: nn.TransformerEncoder", "layers.N", "self_attn.in_proj_", "self_attn.out_proj", "linear1", "linear2",
           stacked=True),
    Scheme("Hugging Face: CLIP, SigLIP", "layers.N", "self_attn.{q,k,v}_proj", "self_attn.out_proj", "mlp.fc1",
           "mlp.fc2", before="embeddings pre_layrnorm pre_layernorm"),
    Scheme("Hugging Face: BART, Whisper, OPT", "layers.N", "self_attn.{q,k,v}_proj", "self_attn.out_proj", "fc1", "fc2",
           before="shared embed_tokens embed_positions layernorm_embedding conv1 conv2 project_in"),
    Scheme("their cross-attention", "layers.N", "encoder_attn.{q,k,v}_proj", "encoder_attn.out_proj"),
    Scheme("Hugging Face: Wav2Vec2", "layers.N", "attention.{q,k,v}_proj", "attention.out_proj",
           "feed_forward.intermediate_dense", "feed_forward.output_dense",
           before="feature_extractor feature_projection masked_spec_embed pos_conv_embed"),
    Scheme("Hugging Face: ViT, BEiT", "layers.N", "attention.{q,k,v}_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
    Scheme("Hugging Face: DINOv2", "layer.N", "attention.{q,k,v}_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
    Scheme("Hugging Face: Swin", "layers.N.blocks.N", "attention.{q,k,v}_proj", "attention.o_proj", "mlp.fc1",
           "mlp.fc2"),
    Scheme("Hugging Face: SegFormer", "stages.N.blocks.N", "attention.{q,k,v}_proj", "attention.o_proj", "mlp.fc1",
           "mlp.fc2", before="patch_embeddings"),
    Scheme("Hugging Face: ConvNeXt", "stages.N.layers.N", mlp_in="pwconv1", mlp_out="pwconv2"),
    Scheme("Hugging Face: ResNet", "stages.N.layers.N.layer.n", before="embedder"),
    Scheme("Hugging Face: Llama, Mistral, Qwen", "layers.N", "self_attn.{q,k,v}_proj", "self_attn.o_proj",
           "mlp.{gate,up}_proj", "mlp.down_proj"),
    Scheme("Hugging Face: Phi-3", "layers.N", "self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj",
           "mlp.down_proj"),
    Scheme("Hugging Face: GPT-NeoX", "layers.N", "attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h",
           "mlp.dense_4h_to_h", before="embed_in"),
    Scheme("Hugging Face: BERT, RoBERTa, ELECTRA", "layer.N", "attention.self.{query,key,value}",
           "attention.output.dense", "intermediate.dense", "output.dense"),
    Scheme("Hugging Face: DeBERTa", "layer.N", "attention.self.{query,key,value}_proj", "attention.output.dense",
           "intermediate.dense", "output.dense"),
    Scheme("Hugging Face: DistilBERT", "layer.N", "attention.{q,k,v}_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"),
    Scheme("Hugging Face: T5, self-attention", "block.N.layer.n", "SelfAttention.{q,k,v}", "SelfAttention.o",
           "DenseReluDense.{wi,wi_0,wi_1}", "DenseReluDense.wo"),
    Scheme("Hugging Face: T5, cross-attention", "block.N.layer.n", "EncDecAttention.{q,k,v}", "EncDecAttention.o"),
    Scheme("Hugging Face: GPT-2", "h.N", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", before="wte wpe",
           transposed=True),
    Scheme("Hugging Face: BLOOM, Falcon", "h.N", "self_attention.query_key_value", "self_attention.dense",
           "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", before="word_embeddings word_embeddings_layernorm"),
)
# fmt: on

ROLES = (
    "attention in", "attention out", "MLP in", "MLP out", "norm", "bias", "embedding", "projection", "head", "other",
)  # fmt: skip

# open_clip's own layout, which every published CLIP checkpoint is read into.
VISUAL = "visual."
RESBLOCKS = "transformer.resblocks."
# What an open_clip model keeps beside its two towers. The published image encoders hold these six although they never
# use them: only the text transformer itself was deleted before they were saved.
TEXT_BEFORE = ("positional_embedding", "text_projection", "logit_scale")
TEXT_AFTER = ("token_embedding.weight", "ln_final.weight", "ln_final.bias")

_TOWER = re.compile(r"^(?:model\.)?(?:visual|vision_model)\.")
# The text tower of open_clip, also as a module of its own, and of Hugging Face's CLIP; not a language model's layers.
_CLIP_TEXT = re.compile(r"^(?:model\.)?(?:transformer|text|text_model(?!\.(?:model|layers)))\.")
_NORM = re.compile(r"(^|[._])(ln|bn|norm|layer_norm|layernorm|layrnorm|LayerNorm|normalization)[._\d]")
_PROJECTIONS = ("proj", "text_projection", "visual_projection")
_MAP = re.compile(r"\w+\.\d+\.(?:weight|bias)")
# What follows the blocks, though a word that comes before them may stand in it, such as a pool's own positions.
_AFTER = {"head", "attnpool", "attn_pool", "pooler", "classifier", "cls", "lm_head", "fc", "decode_head"}
_GROUPS = ("embeddings", "block", "head", "text")
_COUNT = r"N(?=\.|$)"
_ALIKE = 6  # tensors that two numbered modules must share, a norm's among them, to be taken for blocks


@dataclass(frozen=True)
class Layer:
    """What a tensor's name tells among the names of its model.

    Arguments:
        name: the tensor's.
        group: ``embeddings``, ``block_N`` (``encoder.block_N`` where there are several stacks), ``head``, or ``text``
            outside a named image tower. N is the number in the name, or the depth where blocks have two numbers.
        block: the path of its block, such as ``encoder.layers.3``; empty outside, and beside the blocks of a stage.
        stack: what stands before the number of its block; empty outside.
        depth: place of its block in the stack, from 0; None outside.
        blocks: how many blocks the stack has; 0 outside.
    """

    name: str
    group: str
    block: str = ""
    stack: str = ""
    depth: int | None = None
    blocks: int = 0

    @property
    def role(self) -> str:
        """One of `ROLES`."""
        return role(self.name)

    @property
    def relative_depth(self) -> float:
        """0 in the first block of a stack and outside the blocks, 1 in the last."""
        return (self.depth or 0) / max(1, self.blocks - 1)


def read(names: Iterable[str]) -> dict[str, Layer]:
    """Tensor name → what it tells, from all names of a model together.

    Raises:
        ValueError: where no name speaks of a block, or numbered levels cannot be ordered by depth; it names the levels.
    """
    names = tuple(names)
    own = {name: _TOWER.sub("", name) for name in names}  # below the image tower, where there is one
    if any(own[name] != name for name in names) and not _more_than_clip(own):
        own = {name: short for name, short in own.items() if short != name or name.startswith("visual_projection")}
    places = _places(own)
    stacks = {place.stack for place in places.values()}
    layers = {}
    for name in names:
        if name not in own:
            layers[name] = Layer(name, "text")
        elif place := places.get(name):
            group = f"{_below(place.stack)}block_{place.label}" if len(stacks) > 1 else f"block_{place.label}"
            block = place.block and name[: len(name) - len(own[name])] + place.block
            layers[name] = Layer(name, group, block, place.stack, place.depth, place.blocks)
        else:
            layers[name] = Layer(name, "embeddings" if _side(own[name]) else "head")
    return layers


def _more_than_clip(own: dict[str, str]) -> bool:
    """Whether numbered levels lie beside the image tower and CLIP's text tower, such as those of a language model."""
    return any(name == short and _levels(name) and not _CLIP_TEXT.match(name) for name, short in own.items())


def block_rows(names: Iterable[str]) -> dict[str, str]:
    """Tensor name → ``embeddings``, ``block_N``, ``head``, or ``text`` for what lies outside a named vision tower.

    Raises:
        ValueError: as `read`.
    """
    return {name: layer.group for name, layer in read(names).items()}


def block_order(group: str) -> tuple[int, bool, str, int]:
    """Sorting key of the groups of `block_rows`: embeddings, blocks by number (an encoder's first), head, text."""
    stack, _, label = group.rpartition(".")
    kind, _, number = label.partition("_")
    return _GROUPS.index(kind), "decoder" in stack.split("."), stack, int(number or 0)


def in_block(name: str) -> bool:
    """Whether a tensor lies in a block, by its own name."""
    return _anywhere(SCHEMES).search(name) is not None


def role(name: str) -> str:
    """What a tensor does, one of `ROLES`, by its own name: a norm's bias is ``norm``, any other ``bias``."""
    if found := next(_known(name), None):
        return found[0]
    if _NORM.search(name):
        return "norm"
    if name.endswith("bias"):
        return "bias"
    if is_stacked(name):
        return "attention in"
    if in_block(name):
        return "other"
    short = _TOWER.sub("", name)
    if _side(short):
        return "embedding"
    return "projection" if short.removesuffix(".weight") in _PROJECTIONS else "head"


def is_stacked(name: str) -> bool:
    """Whether a weight holds the rows of queries, keys and values, in three equal parts."""
    return name.endswith(_stacked(SCHEMES))


def is_mlp(module: str) -> bool:
    """Whether a module is a block's MLP as a whole, by its path."""
    ends = [(row.mlp_in.rpartition(".")[0], row.mlp_out.rpartition(".")[0]) for row in SCHEMES]
    return module.rpartition(".")[2] in {first for first, last in ends if first == last} - {""}


@dataclass(frozen=True)
class Units:
    """Hidden units of a block: they may change places, since only what is named here knows their order.

    Arguments:
        kind: ``MLP units`` or ``attention heads``.
        block: path of the block.
        module: path of the module that they lie in, or of the block.
        rows: tensors whose rows belong to the units.
        columns: the matrix whose columns do.
    """

    kind: str
    block: str
    module: str
    rows: tuple[str, ...]
    columns: str


def units(names: Iterable[str]) -> Iterator[Units]:
    """The units of all blocks whose layout is in the table, in the order of their last matrices."""
    there = dict.fromkeys(names)
    for name in there:
        for what, row, start in _known(name):
            heads = what == "attention out"
            first = _modules(row.attention_in if heads else row.mlp_in)
            # Where one tensor holds queries, keys and values otherwise than stacked, their rows are not told apart.
            if row.transposed or not (heads or what == "MLP out") or (heads and len(first) == 1 and not row.stacked):
                continue
            rows = tuple(start + _tensor(module, kind) for module in first for kind in ("weight", "bias"))
            if rows := tuple(key for key in rows if key in there):
                module = (start + first[0]).rpartition(".")[0]
                yield Units("attention heads" if heads else "MLP units", start.rstrip("."), module, rows, name)
                break


def tower_names(blocks: int) -> tuple[str, ...]:
    """Tensors of an open_clip vision tower with that many blocks, in its order."""
    return (
        *("class_embedding", "positional_embedding", "proj", "conv1.weight", "ln_pre.weight", "ln_pre.bias"),
        *resblock_names(blocks),
        *("ln_post.weight", "ln_post.bias"),
    )


def resblock_names(blocks: int) -> tuple[str, ...]:
    """Tensors of that many of open_clip's transformer blocks, in its order."""
    modules = ("ln_1", "attn.in_proj_", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    inside = [_tensor(module, kind) for module in modules for kind in ("weight", "bias")]
    return tuple(f"{RESBLOCKS}{number}.{name}" for number in range(blocks) for name in inside)


def encoder_names(blocks: int) -> tuple[str, ...]:
    """Tensors of a published image encoder: the vision tower amid the six text leftovers."""
    return (*TEXT_BEFORE, *(VISUAL + name for name in tower_names(blocks)), *TEXT_AFTER)


@dataclass(frozen=True)
class _Path:
    """One way of numbering blocks, compiled from the column ``blocks``."""

    levels: str  # such as layers.N.blocks.N
    first: str  # what stands before the first number: "layers."
    # A tensor in a block, from the first level on. In blocks.0.0.weight the second number may be that of a layer in a
    # block: bare numbers are levels only where modules follow, and then for tensors without a module too.
    sure: re.Pattern[str]
    block: re.Pattern[str]
    inside: re.Pattern[str] | None  # numbered levels inside a block


@dataclass(frozen=True)
class _Place:
    stack: str
    block: str  # empty beside the blocks of a stage
    depth: int
    blocks: int
    label: int
    rest: str  # of the name, behind the block or the stage, without the numbers that the table explains


def _split(blocks: str) -> tuple[str, tuple[str, ...]]:
    """``block.N.layer.n`` → ``block.N`` and the words of numbered levels inside, (``layer``,)."""
    levels, *inside = re.split(r"\.(\w+)\.n(?=\.|$)", blocks)
    return levels, tuple(word for word in inside if word)


def _pattern(levels: str, number: str) -> str:
    return number.join(map(re.escape, re.split(_COUNT, levels))) + r"\."


@lru_cache
def _paths(schemes: tuple[Scheme, ...]) -> tuple[_Path, ...]:
    """The ways of numbering blocks, those with most levels first."""
    inside: dict[str, set[str]] = {}
    for row in schemes:
        levels, words = _split(row.blocks)
        inside.setdefault(levels, set()).update(words)
    paths = []
    for levels, words in sorted(inside.items(), key=lambda item: -item[0].count("N")):
        pattern = _pattern(levels, r"(\d+)")
        sure = pattern + (r"(?=[A-Za-z_]\w*\.)" if "N.N" in levels else "")
        known = re.compile(rf"(?:^|(?<=\.))({'|'.join(sorted(words))})\.(\d+)\.") if words else None
        first = re.split(_COUNT, levels)[0]
        paths.append(_Path(levels, first, re.compile(sure), re.compile(pattern), known))
    return tuple(paths)


@lru_cache
def _anywhere(schemes: tuple[Scheme, ...]) -> re.Pattern[str]:
    return re.compile(r"(?:^|\.)(?:" + "|".join(path.sure.pattern for path in _paths(schemes)) + ")")


@lru_cache
def _first_level(schemes: tuple[Scheme, ...]) -> re.Pattern[str]:
    words = "|".join(sorted({re.escape(path.first) for path in _paths(schemes)}))
    return re.compile(rf"(?:^|(?<=\.))({words})(\d+)\.")


def _places(own: dict[str, str]) -> dict[str, _Place]:
    """Names in blocks, and beside the blocks of a stage → where they lie."""
    containers: dict[str, dict[str, dict[str, str]]] = {}
    first_level = _first_level(SCHEMES)
    for name, short in own.items():
        if found := first_level.search(short):
            stack, first = short[: found.start()].rstrip("."), found[1]
            containers.setdefault(stack, {}).setdefault(first, {})[name] = short[found.start() :]
    if len(containers) > 1:  # a head of several layers has no depth where there are blocks
        containers = {stack: found for stack, firsts in containers.items() if (found := _without_rows_of_maps(firsts))}
    places: dict[str, _Place] = {}
    for stack, firsts in containers.items():
        # "layers." begins layers.N and layers.N.blocks.N: what has most levels, and comes last here, is how they count.
        paths = {
            first: path
            for first, tails in firsts.items()
            for path in _paths(SCHEMES)[::-1]
            if path.first == first and any(path.sure.match(tail) for tail in tails.values())
        }
        if len(paths) > 1:
            raise ValueError(_unknown_depth([_below(stack) + path.levels for path in paths.values()]))
        for first, path in paths.items():
            places |= _placed(path, stack, firsts[first])
    _check(own, places)
    return places


def _without_rows_of_maps(firsts: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """First level → names, of those levels that count more than weights and biases."""
    return {first: t for first, t in firsts.items() if not all(map(_MAP.fullmatch, t.values()))}


def _placed(path: _Path, stack: str, tails: dict[str, str]) -> dict[str, _Place]:
    """Places of the tensors of one stack, from the parts of their names that begin with the first level."""
    found = {name: path.block.match(tail) for name, tail in tails.items()}
    numbers = {name: tuple(map(int, match.groups())) for name, match in found.items() if match}
    sure = {numbers[name] for name in numbers if path.sure.match(tails[name])}
    if set(numbers.values()) - sure:  # a layer without modules among them, so that the last number counts layers
        raise ValueError(_unknown_depth([_below(stack) + path.levels]))
    order = {own: depth for depth, own in enumerate(sorted(set(numbers.values())))}
    stages = {name: _first_level(SCHEMES).match(tails[name]) for name in tails if name not in numbers}
    beside = {name: (int(match[2]), tails[name][match.end() :]) for name, match in stages.items()}
    # What the first stage has too ends a stage; what begins one is there from the second on, or an embedding.
    opening = min([number for number, *_ in order] + [stage for stage, _ in beside.values()])
    ending = {rest.partition(".")[0] for stage, rest in beside.values() if stage == opening and not _side(rest)}
    places = {}
    for name, own in numbers.items():
        rest, depth = tails[name][found[name].end() :], order[own]
        rest = path.inside.sub(r"\1_\2.", rest) if path.inside else rest
        block = _below(stack) + found[name][0].rstrip(".")
        places[name] = _Place(stack, block, depth, len(order), own[0] if len(own) == 1 else depth, rest)
    for name, (stage, rest) in beside.items():
        if rest.partition(".")[0] in ending:
            depth = max((d for own, d in order.items() if own[0] <= stage), default=0)
        else:
            depth = min((d for own, d in order.items() if own[0] >= stage), default=len(order) - 1)
        places[name] = _Place(stack, "", depth, len(order), depth, rest)
    return places


def _check(own: dict[str, str], places: dict[str, _Place]) -> None:
    """Refuse names without blocks, stacks told apart by numbers alone, and blocks that no row describes."""
    if not places:
        known = ", ".join(path.levels for path in _paths(SCHEMES))
        seen = [level for level in dict.fromkeys(map(_levels, own.values())) if level]
        raise ValueError(
            f"no transformer blocks ({known}) are among the tensor names, whose numbered levels are "
            f"{', '.join(seen[:5]) or 'none'}"
        )
    stacks = {place.stack for place in places.values()}
    numbered = [_levels(stack + ".") or stack for stack in sorted(stacks)]
    if len(set(numbered)) < len(stacks):
        raise ValueError(_unknown_depth([level for level in dict.fromkeys(numbered) if numbered.count(level) > 1]))
    children: dict[str, dict[str, set[str]]] = {}
    for name, short in own.items():
        rest = places[name].rest if name in places else short
        tokens = rest.split(".") if name in places or _side(short) is None else []  # no depth is needed there
        for place, token in enumerate(tokens):
            if token.isdigit():
                parent = short[: len(short) - len(rest)] + "".join(f"{part}." for part in tokens[:place])
                children.setdefault(parent, {}).setdefault(token, set()).add(".".join(tokens[place + 1 :]))
    alike = [
        parent for parent, numbers in children.items() if any(_blocks(a & b) for a, b in pairwise(numbers.values()))
    ]
    if alike:
        raise ValueError(_unknown_depth(list(dict.fromkeys(_levels(f"{parent}0.") for parent in alike))))


def _blocks(shared: set[str]) -> bool:
    # A norm inside of a sequence has a number for its name, and is known by its statistics.
    return len(shared) >= _ALIKE and any(_NORM.search(name) or name.endswith("running_var") for name in shared)


def _unknown_depth(levels: list[str]) -> str:
    return (
        f"the depth of {' and '.join(levels[:3])} cannot be told from the tensor names: no row of "
        "adamerging_lib.layers.SCHEMES describes these numbered levels"
    )


def _levels(name: str) -> str:
    """A name up to its last number, its numbers as N; empty without one."""
    return re.sub(r"\d+", "N", re.match(r"(?:.*\d)?", name)[0])


def _below(stack: str) -> str:
    return f"{stack}." if stack else ""


@lru_cache
def _before(schemes: tuple[Scheme, ...]) -> frozenset[str]:
    return frozenset(word for row in schemes for word in row.before.split())


def _side(name: str) -> bool | None:
    """Whether what lies outside the blocks is known to come before them (True), or after them (False)."""
    first = next((word for word in name.split(".") if word in _AFTER or word in _before(SCHEMES)), None)
    return None if first is None else first not in _AFTER


def _tensor(module: str, kind: str) -> str:
    return module + kind if module.endswith("_") else f"{module}.{kind}"


def _modules(column: str) -> tuple[str, ...]:
    """``mlp.{gate,up}_proj`` → ``mlp.gate_proj``, ``mlp.up_proj``."""
    start, brace, rest = column.partition("{")
    middle, _, end = rest.partition("}")
    return tuple(start + one + end for one in middle.split(",")) if brace else (column,) if column else ()


@lru_cache
def _stacked(schemes: tuple[Scheme, ...]) -> tuple[str, ...]:
    """Ends of the names of stacked weights: ``in_proj_weight`` and so on."""
    modules = dict.fromkeys(m.rpartition(".")[2] for row in schemes if row.stacked for m in _modules(row.attention_in))
    return tuple(_tensor(module, "weight") for module in modules)


@lru_cache
def _weights(schemes: tuple[Scheme, ...]) -> dict[str, list[tuple[str, str, Scheme, re.Pattern[str]]]]:
    """A weight's name inside its block → the roles that it has in the table, with its module and path of the block."""
    found: dict[str, list[tuple[str, str, Scheme, re.Pattern[str]]]] = {}
    for row in schemes:
        levels, words = _split(row.blocks)
        inside = "".join(rf"(?:{word}\.\d+\.)?" for word in words)
        block = re.compile(r"(?:^|\.)" + _pattern(levels, r"\d+") + inside + "$")
        columns = (row.attention_in, row.attention_out, row.mlp_in, row.mlp_out)
        for what, column in zip(ROLES, columns, strict=False):
            for module in _modules(column):
                found.setdefault(_tensor(module, "weight"), []).append((what, module, row, block))
    return found


def _known(name: str) -> Iterator[tuple[str, Scheme, str]]:
    """Role, row, and what stands before the module, for the rows that know a weight.

    Of rows for other blocks, or for a pool outside them, a module counts where its name says more than one word.
    """
    tokens = name.split(".")
    candidates = []
    for count in range(min(len(tokens), 5), 0, -1):
        tail = ".".join(tokens[-count:])
        candidates += [(*entry, name.removesuffix(tail)) for entry in _weights(SCHEMES).get(tail, ())]
    inside = [(what, row, start) for what, _, row, block, start in candidates if block.search(start)]
    yield from inside or [(what, row, start) for what, module, row, _, start in candidates if "." in module]
