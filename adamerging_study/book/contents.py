"""Variants in the contents of the book: without numbers, and passed over by Previous and Next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from docutils import nodes

from .worlds import run_of


def neighbours(docname: str, relations: Mapping[str, Sequence[str | None]]) -> list[str | None]:
    """The pages before and after one, variants passed over; a variant's are its experiment's page and the next one.

    Arguments:
        docname: the page; one outside the contents, such as that of the search, has no neighbours.
        relations: page → parent, page before, page after, as Sphinx collects them from the contents.
    """
    found = []
    for way in (1, 2):
        other = relations[docname][way] if docname in relations else None
        while other is not None and run_of(other):
            other = relations[other][way]
        found.append(other)
    return found


def setup(app) -> None:
    """Connect to Sphinx, after its own numbering and its own links."""
    app.connect("env-get-updated", _take_numbers, priority=900)
    app.connect("html-page-context", _pass_over_variants)


def _take_numbers(app, env) -> list[str]:
    # A variant's figures count from 1 on its own page: after those of the default page they would tell of no order.
    variants = [docname for docname in sorted(env.found_docs) if run_of(docname)]
    for docname in variants:
        env.toc_secnumbers.pop(docname, None)
        references = env.tocs[docname].findall(nodes.reference)
        for node in (env.titles[docname], env.longtitles[docname], *references):
            node.attributes.pop("secnumber", None)
        for numbers in env.toc_fignumbers.get(docname, {}).values():
            ordered = sorted(numbers, key=numbers.get)
            numbers.update({label: (place,) for place, label in enumerate(ordered, start=1)})
    return variants


def _pass_over_variants(app, docname: str, template: str, context: dict, doctree) -> None:
    relations = getattr(app.builder, "relations", {})
    for key, other in zip(("prev", "next"), neighbours(docname, relations), strict=True):
        if context.get(key):  # the book on a single page has neither
            context[key] = other and {
                "link": app.builder.get_relative_uri(docname, other),
                "title": app.builder.render_partial(app.env.titles[other])["title"],
            }
