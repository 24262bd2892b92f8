"""The drawing of Snakemake's graph."""

import pytest

from adamerging_study.book.workflow import workflow

DOT = r"""digraph snakemake_dag {
	0[label = "default", color = "0.00 0.6 0.85", style="rounded"];
	1[label = "page\npage: performance", color = "0.17 0.6 0.85", style="rounded"];
	2[label = "variant\nrun: long\npage: performance", color = "0.3 0.6 0.85", style="rounded"];
	3[label = "variants", color = "0.0 0.6 0.85", style="rounded"];
	1 -> 0
	2 -> 3
}"""


def test_every_job_is_a_box_with_its_values():
    (axes,) = workflow(DOT).axes
    assert [t.get_text() for t in axes.texts if t.get_text()] == [
        "performance",
        "long, performance",
        "default",
        "variants",
    ]


def test_nothing_printed():
    with pytest.raises(ValueError, match="snakemake printed no job"):
        workflow("Building DAG of jobs...")
