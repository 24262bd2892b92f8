"""What a linked term or equation is, where the mouse rests on the link; references have it from their bibliography."""

from __future__ import annotations

import re
from functools import lru_cache

from docutils import nodes
from sphinx.environment import BuildEnvironment

GLOSSARY = "book/glossary"
_ANCHOR = re.compile(r"#?((?:term|equation)-[^#]+)$")
_SENTENCE = re.compile(r"(?<=[.?!])\s")


def add(app, doctree: nodes.document, docname: str) -> None:
    """Give links to terms and equations a title, which browsers show beside the mouse."""
    for link in doctree.findall(nodes.reference):
        anchor = _ANCHOR.search(link.get("refuri") or link.get("refid") or "")
        if anchor and "reftitle" not in link and (told := _told(app.env).get(anchor[1])):
            link["reftitle"] = told


@lru_cache(maxsize=1)
def _told(env: BuildEnvironment) -> dict[str, str]:
    """Anchor → first sentence of a term's definition, or an equation as it was typed."""
    found = {}
    if GLOSSARY in env.found_docs:
        for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
            sentence = _SENTENCE.split(" ".join(item.children[-1].astext().split()))[0]
            found |= {anchor: sentence for term in item.findall(nodes.term) for anchor in term["ids"]}
    for label, equation in env.get_domain("math").equations.items():
        for block in env.get_doctree(equation[0]).findall(nodes.math_block):
            if block.get("label") == label:
                found[nodes.make_id(f"equation-{label}")] = " ".join(block.astext().split())
    return found
