"""Say what is wrong with a base and its experts before they are merged."""

from __future__ import annotations

from collections.abc import Sequence

from ..doctor.check import check
from ..files.align import Options


def check_experts(pretrained: str | None, experts: Sequence[str], options: Options, *, json: bool = False) -> int:
    """Check a base and its experts, and say what was found, and what to do.

    Arguments:
        pretrained: file, folder; None where it is not at hand.
        experts: ``name=file`` each.
        options: what is left out, renamed or cast where the models do not fit together.
        json: print the report as JSON, see `doctor.report.Report.json`.

    Returns:
        Exit code: 0 where nothing is wrong, 1 after warnings, 2 where they cannot be merged.

    Raises:
        ValueError: an expert without a name.
    """
    report = check(pretrained, named(experts), **vars(options), progress=True)
    print(report.json() if json else report)
    return report.exit_code


def named(experts: Sequence[str]) -> list[tuple[str, str]]:
    """(name, file) of ``name=file`` each; ValueError where one has no name."""
    pairs = []
    for text in experts:
        name, equals, path = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--expert {text} should read name=file, such as --expert mnist=mnist.safetensors")
        pairs.append((name, path))
    return pairs
