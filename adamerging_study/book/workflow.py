"""The workflow's graph, drawn from what Snakemake itself prints of it."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..style import WIDTH, styled

_NODE = re.compile(r'(\d+)\[label = "([^"]*)"')
_EDGE = re.compile(r"(\d+) -> (\d+)")


@styled
def workflow(dot: str) -> Figure:
    """Jobs as boxes, what they lead to at the right; jobs of one rule share a colour.

    Arguments:
        dot: what ``snakemake --dag`` prints.

    Raises:
        ValueError: where it holds no job.
    """
    nodes = {node: label.replace("\\\\n", "\n").replace("\\n", "\n").split("\n") for node, label in _NODE.findall(dot)}
    edges = _EDGE.findall(dot)
    if not nodes:
        raise ValueError("snakemake printed no job: is there a notebook?")
    targets = [node for node in nodes if node not in {source for source, _ in edges}]
    jobs = [node for node in nodes if node not in targets]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.34 * max(len(jobs), 2) + 0.4))
    place = {node: (0.0, -float(i)) for i, node in enumerate(jobs)}
    for node in targets:
        feeding = [place[source][1] for source, target in edges if target == node] or [0.0]
        place[node] = (1.0, sum(feeding) / len(feeding))
    for source, target in edges:
        (x0, y0), (x1, y1) = place[source], place[target]
        axes.annotate(
            "", (x1 - 0.13, y1), (x0 + 0.16, y0), arrowprops={"arrowstyle": "->", "color": "#777777", "lw": 0.9}
        )
    colours = {"page": "#CFE3F3", "long_page": "#CFE3F3", "variant": "#F6E1BE"}
    for node, (x, y) in place.items():
        rule, *values = nodes[node]
        text = ", ".join(value.partition(": ")[2] for value in values) or rule
        box = {"boxstyle": "round,pad=0.35", "fc": colours.get(rule, "#E4E4E4"), "ec": "#555555", "lw": 0.7}
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box)
    axes.set(xlim=(-0.3, 1.25), ylim=(-len(jobs) + 0.4, 0.6))
    axes.axis("off")
    return figure
