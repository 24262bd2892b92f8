"""What `check` found, as an object, as text for people, and as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..runtime.text import paragraph, table
from .advice import Advice
from .findings import ERROR, LEVELS, WARNING, Finding, exit_code

SCHEMA = 1
_VERDICTS = ("merge", "merge with care", "do not merge")
_HEADINGS = {ERROR: "These cannot be merged", WARNING: "Warnings", "note": "Good to know"}


@dataclass(frozen=True)
class Report:
    """What was found in a set of experts, and what to do.

    Arguments:
        pretrained: where θ0 is; None where it was not given.
        experts: one row per expert; see `json` for the columns.
        cosines: cos(T_j, T_k), experts × experts; empty without θ0.
        tensors: one row per tensor: ``kind``, ``dtype``, ``shape``, ``numbers``.
        findings: what is wrong or odd, the gravest first.
        advice: what to do.
        seconds: time that it took.
    """

    pretrained: str | None
    experts: pd.DataFrame
    cosines: pd.DataFrame
    tensors: pd.DataFrame
    findings: tuple[Finding, ...]
    advice: Advice
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: merge; 1: there are warnings; 2: cannot be merged, or should not be."""
        return exit_code(self.findings)

    @property
    def verdict(self) -> str:
        """``merge``, ``merge with care`` or ``do not merge``."""
        return _VERDICTS[self.exit_code]

    def json(self) -> str:
        """The report as JSON; the layout changes only together with ``schema``.

        ``schema`` (1), ``verdict``, ``exit_code``, ``pretrained`` (text or null);
        ``experts``: name → ``path``, ``parameters``, ``dtypes``, ``norm`` ‖T_k‖, ``relative`` ‖T_k‖ / ‖θ0‖,
        ``beside_others`` ‖T_k‖ / median of the others', ``changed`` and ``conflict`` (shares), ``rank`` (mean effective
        rank of its matrices) and ``noise`` (that as a share of what noise has), ``strange`` (share of entries in
        matrices unlike θ0's), ``nearest``, ``cosine``; null where it is not known;
        ``cosines``: expert → expert → cosine;
        ``tensors``: kind → ``tensors``, ``numbers`` (counts);
        ``findings``: list of ``level`` (error, warning, note), ``code``, ``experts``, ``message``, ``mend``;
        ``advice``: ``method``, ``without`` (experts to leave out), ``why``, ``command``, ``expect``, ``options`` (null
        where there is none), ``evidence``: list of ``world``, ``case``, ``method``, ``accuracy``.
        """
        told = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "pretrained": self.pretrained,
            "experts": _plain(self.experts.to_dict("index")),
            "cosines": _plain(self.cosines.to_dict("index")),
            "tensors": _plain(self._kinds().to_dict("index")),
            "findings": [vars(finding) | {"experts": list(finding.experts)} for finding in self.findings],
            "advice": _plain(self.advice.plain()),
        }
        return json.dumps(told, indent=1, ensure_ascii=False)

    def _kinds(self) -> pd.DataFrame:
        return self.tensors.groupby("kind", sort=False).agg(tensors=("numbers", "count"), numbers=("numbers", "sum"))

    def __str__(self) -> str:
        blocks = [self._experts_text(), self._tensors_text(), *self._findings_text(), self.advice.text(self.exit_code)]
        return "\n\n".join(block for block in blocks if block)

    def _experts_text(self) -> str:
        if not len(self.experts):
            return ""
        frame = self.experts
        shown = pd.DataFrame(index=frame.index.rename("expert"))
        for column, title, form in _COLUMNS:
            if column in frame and frame[column].notna().any():
                shown[title] = [_cell(value, form) for value in frame[column]]
        for column, form in (("cosine", "{:.2f} "), ("apart", "{:.1%} ")):
            if column in frame and frame[column].notna().any():
                near = zip(frame[column], frame["nearest"], strict=True)
                shown["nearest"] = ["–" if pd.isna(value) else form.format(value) + name for value, name in near]
        legend = [text for column, _, text in _LEGEND if column in frame and frame[column].notna().any()]
        return table(shown) + ("\n\n" + paragraph("; ".join(legend) + ".") if legend else "")

    def _tensors_text(self) -> str:
        kinds = self._kinds()
        told = [f"{row['tensors']:,} {kind} ({row['numbers']:,} numbers)" for kind, row in kinds.iterrows()]
        return paragraph("Tensors: " + ", ".join(told) + ".") if told else ""

    def _findings_text(self) -> list[str]:
        blocks = []
        for level in LEVELS:
            told = [finding for finding in self.findings if finding.level == level]
            if told:
                lines = [paragraph(_sentence(finding), "    ", first="  * ") for finding in told]
                blocks.append("\n".join([_HEADINGS[level], *lines]))
        return blocks or ["Nothing is wrong with these."]


_COLUMNS = (
    ("norm", "distance", "{:.3g}"),
    ("relative", "relative", "{:.2%}"),
    ("beside_others", "× others", "{:.2f}"),
    ("changed", "changed", "{:.1%}"),
    ("conflict", "conflict", "{:.1%}"),
    ("rank", "rank", "{:.0f}"),
    ("noise", "of noise", "{:.0%}"),
)
_LEGEND = (
    ("norm", "", "distance: norm of expert − pretrained"),
    ("relative", "", "relative: to the norm of pretrained"),
    ("beside_others", "", "× others: to the median of the others' distances"),
    ("changed", "", "changed: entries that differ"),
    ("conflict", "", "conflict: of these, moved against the sum of all"),
    ("rank", "", "rank: effective rank of the difference, mean over its matrices"),
    ("noise", "", "of noise: that beside the rank of noise"),
    ("cosine", "", "nearest: largest cosine with another expert's difference"),
    ("apart", "", "nearest: the closest other expert, and how far it is, to the norm of this one"),
)


def _sentence(finding: Finding) -> str:
    text = str(finding)
    return text if text.endswith(("?", ".", ")")) or "\n" in text else f"{text}."


def _cell(value: object, form: str) -> str:
    return "–" if value is None or (isinstance(value, float) and math.isnan(value)) else form.format(value)


def _plain(value: Any) -> Any:
    """Plain JSON: NumPy's numbers as Python's, NaN and Inf as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
