"""Links to terms and equations say what they lead to, in pages that Sphinx built."""

from __future__ import annotations

import html
import re

from sphinx.application import Sphinx

PAGES = {
    "conf.py": """
from adamerging_study.book import tips

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "amsmath"]


def setup(app):
    app.connect("doctree-resolved", tips.add)
""",
    "index.md": """# Start

See {term}`task vector` and {eq}`eq-merge` from elsewhere, and a [link](https://example.org).

```{toctree}
book/glossary
book/method
```
""",
    "book/glossary.md": """# Glossary

```{glossary}
task vector
  What fine-tuning added: "θ" less θ0. A second sentence.
```
""",
    "book/method.md": """# Method

$$ \\theta = \\theta_0 + \\lambda T $$ (eq-merge)

{eq}`eq-merge` from here.
""",
}


def test_links_tell_the_first_sentence_and_the_formula(tmp_path):
    for name, text in PAGES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    app = Sphinx(tmp_path, tmp_path, out, tmp_path / "trees", "html", status=None, warning=None)
    app.build()
    start, method = ((out / name).read_text(encoding="utf-8") for name in ("index.html", "book/method.html"))
    titles = re.findall(r'<a class="reference internal"[^>]* title="([^"]*)"', start)
    term, equation = map(html.unescape, titles)
    assert re.fullmatch("What fine-tuning added: .θ. less θ0.", term)  # Sphinx turns the quotes
    assert equation == r"\theta = \theta_0 + \lambda T"
    assert re.search(r'<a class="reference internal" href="#equation-eq-merge" title="[^"]*theta_0', method)
