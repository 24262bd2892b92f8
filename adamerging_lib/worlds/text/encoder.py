"""The encoder of the world of text: a small BERT in transformers' classes, its tokens, and heads with a bias.

Whatever learns and measures here takes unit features and a head without a bias. So `TextEncoder` gives one feature
that is the same for every text, and a head's bias is its weight (`affine_head`): f·W + b without a line elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ...runtime.compat import import_tokenizers, import_transformers
from ...state import sha256
from .tasks import Text

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the encoder."""

    vocabulary: int = 700
    length: int = 32
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 256


def masked_lm(config: TextConfig, *, seed: int = 0) -> nn.Module:
    """A ``BertForMaskedLM`` of these sizes, freshly initialised."""
    transformers = import_transformers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers initialises from the global generator
        return transformers.BertForMaskedLM(_bert_config(config))


def _bert_config(config: TextConfig):
    return import_transformers().BertConfig(
        vocab_size=config.vocabulary, hidden_size=config.width, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, intermediate_size=config.inner, max_position_embeddings=config.length,
        type_vocab_size=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=PAD,
    )  # fmt: skip


class TextEncoder(nn.Module):
    """Tokens int64 ``[n, length]`` → unit features ``[n, width + 1]``: a mean over the text, and a constant.

    Its state dict has the names that transformers' own task models give their encoder (``bert.…``).

    Arguments:
        config: its sizes.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.bert = import_transformers().BertModel(_bert_config(config), add_pooling_layer=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Unit features ``[n, width + 1]``, whose last is √½ for every text."""
        if not torch._C._functorch.is_functorch_wrapped_tensor(tokens):  # vmap allows no look at values
            longest = int((tokens != PAD).any(0).sum())
            tokens = tokens[:, :longest]  # what is padding in all texts would cost as much as words
        hidden, mask = hidden_states(self.bert, tokens)
        mask = mask.to(hidden)[..., None]
        unit = normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)
        return torch.cat([unit, torch.ones_like(unit[:, :1])], 1) * 0.5**0.5


def hidden_states(bert: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Last hidden states ``[n, length, width]`` of a ``BertModel``; which tokens are not padding ``[n, length]``."""
    mask, ends = tokens != PAD, (tokens == SEP).long()
    second = ((ends.cumsum(1) - ends) > 0) & mask  # what stands behind the first [SEP]
    # Four dimensions are taken as they are; of two, transformers looks at the values, which vmap does not allow.
    seen = mask[:, None, None, :].expand(-1, 1, tokens.shape[1], -1)
    out = bert(input_ids=tokens, attention_mask=seen, token_type_ids=second.long())
    return out.last_hidden_state, mask


def affine_head(weight: Tensor, bias: Tensor) -> Tensor:
    """A linear head with bias as a head of `TextEncoder`'s features, ``[classes, width + 1]``.

    Arguments:
        weight: ``[classes, width]``.
        bias: ``[classes]``.

    Returns:
        √2 · [W, b]: its product with [f/‖f‖, 1]·√½ is f/‖f‖·Wᵀ + b.
    """
    return torch.cat([weight, bias[:, None]], 1) * 2**0.5


def fit_head(features: Tensor, labels: Tensor, classes: int, decay: float) -> tuple[Tensor, Tensor]:
    """Weight ``[classes, width]`` and bias ``[classes]`` of a logistic regression: mean CE + decay · ‖W‖².

    Arguments:
        features: of `TextEncoder`, ``[n, width + 1]``.
        labels: ``[n]``.
        classes: how many there are.
        decay: of the weight, not of the bias.
    """
    unit = normalize(features[:, :-1].double(), dim=-1)
    weight = torch.zeros(classes, unit.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=500, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = cross_entropy(unit @ weight.T + bias, labels) + decay * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weight.detach().float(), bias.detach().float()


class Tokenizer:
    """WordPiece tokens by a file of the library `tokenizers`, whose SHA-256 is its ``digest``.

    Arguments:
        path: ``tokenizer.json``.
        length: tokens per text; shorter ones are padded.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._tokenizer, self.length = import_tokenizers().Tokenizer.from_file(str(path)), length
        self.digest = sha256(path)

    def __call__(self, texts: Sequence[Text]) -> Tensor:
        """Texts as int64 ``[n, length]``: [CLS] first [SEP] second [SEP].

        Raises:
            ValueError: naming a text that is longer.
        """
        tokens = torch.full((len(texts), self.length), PAD)
        found = self._tokenizer.encode_batch([text if len(text) > 1 else text[0] for text in texts])
        for row, (text, encoding) in enumerate(zip(texts, found, strict=True)):
            if len(encoding.ids) > self.length:
                raise ValueError(f"{' | '.join(text)!r} has {len(encoding.ids)} tokens, {self.length} fit: shorten it")
            tokens[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
        return tokens


def train_tokenizer(texts: Sequence[Text], vocabulary: int, path: Path) -> None:
    """A WordPiece vocabulary made from texts, as a file.

    WordPiece makes long pieces of short ones, and takes the longest that fits: most short ones are never used again. A
    large vocabulary is made first, therefore, and what these texts use of it is kept, with all single characters.

    Arguments:
        texts: of the pre-training stream.
        vocabulary: tokens at most.
        path: ``tokenizer.json``.
    """
    trainer = import_tokenizers().trainers.WordPieceTrainer(
        vocab_size=8 * vocabulary, special_tokens=list(SPECIAL), show_progress=False
    )
    sentences = [sentence for text in texts for sentence in text]
    large = _word_pieces({})
    large.train_from_iterator(sentences, trainer)
    used = Counter(token for encoding in large.encode_batch(sentences) for token in encoding.tokens)
    single = sorted(piece for piece in large.get_vocab() if len(piece.removeprefix("##")) == 1)
    often = [piece for piece, _ in sorted(used.items(), key=lambda item: (-item[1], item[0]))]
    kept = list(dict.fromkeys([*SPECIAL, *single, *often]))[:vocabulary]
    made = _word_pieces({piece: number for number, piece in enumerate(kept)})
    made.post_processor = import_tokenizers().processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    made.save(str(path))


def _word_pieces(vocabulary: Mapping[str, int]):
    tokenizers = import_tokenizers()
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=SPECIAL[UNKNOWN]))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made


def masked(tokens: Tensor, rate: float, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens with some masked as BERT does it, and which those are: 80 % [MASK], 10 % another word, 10 % unchanged.

    Arguments:
        tokens: ``[n, length]``.
        rate: share of words that are to be guessed.
        vocabulary: how many tokens there are.
        generator: what is drawn from.
    """
    chosen = (torch.rand(tokens.shape, generator=generator) < rate) & (tokens >= len(SPECIAL))
    how = torch.rand(tokens.shape, generator=generator)
    words = torch.randint(len(SPECIAL), vocabulary, tokens.shape, generator=generator)
    changed = torch.where(how < 0.8, torch.full_like(tokens, MASK), torch.where(how < 0.9, words, tokens))
    return torch.where(chosen, changed, tokens), chosen


def masked_loss(model: nn.Module, tokens: Tensor, given: Tensor, chosen: Tensor) -> Tensor:
    """Mean cross-entropy of the words to be guessed; only they reach the output layer."""
    hidden, _ = hidden_states(model.bert, given)
    return cross_entropy(model.cls(hidden[chosen]), tokens[chosen])


def encoder_state(model: nn.Module) -> Mapping[str, Tensor]:
    """The part of a ``BertForMaskedLM`` that `TextEncoder` has."""
    return {key: t for key, t in model.state_dict().items() if key.startswith("bert.")}
