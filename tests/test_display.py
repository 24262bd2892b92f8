"""What notebooks show of a data frame: plain, stable HTML, and text outside a browser."""

import numpy as np
import pandas as pd

from adamerging_study.display import Sentences, Table

COLUMNS = pd.MultiIndex.from_tuples([("average", "measured"), ("average, published", "ViT-B/32")])
FRAME = pd.DataFrame([["72.0 ± 1.4", "72.4"], ["48.0 ± 1.5", np.nan]], index=["Ties", "A < B"], columns=COLUMNS)


def test_table_html_is_plain_stable_and_captioned():
    table = Table(FRAME, "Accuracy, A < B")
    page = table._repr_html_()
    assert page == Table(FRAME, "Accuracy, A < B")._repr_html_()
    assert page.count("<caption>Accuracy, A &lt; B</caption>") == 1
    assert 'class="dataframe"' in page and "<style" not in page and ' id="' not in page
    assert "72.0<br><small>± 1.4</small>" in page and "<td>–</td>" in page and "NaN" not in page
    assert repr(table).startswith("Accuracy, A < B\n") and "NaN" not in repr(table)


def test_published_columns_are_marked_cell_by_cell():
    page = Table(FRAME, "Accuracy")._repr_html_()
    assert page.count('<span class="published">') == 1
    assert '<span class="published">72.4</span>' in page


def test_the_index_is_left_out_where_it_says_nothing():
    frame = pd.DataFrame({"x": ["a"]}, index=[7])
    for index in (True, False):
        assert ("<th>7</th>" in Table(frame, "t", index)._repr_html_()) == index
    assert repr(Table(frame, "t", index=False)).split() == ["t", "x", "a"]


def test_sentences_are_a_list():
    sentences = Sentences(["A < B.", "C."])
    assert sentences._repr_html_() == "<ul>\n<li>A &lt; B.</li>\n<li>C.</li>\n</ul>"
    assert repr(sentences) == "A < B.\nC."
