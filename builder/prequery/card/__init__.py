"""The dataset card: measured from a release's Parquet files, then rendered.

Tables -> `measure` -> `Facts` -> `make` -> README.md and plots. Neither touches disk or network,
and no number on a card comes from anywhere but the tables and the lock.

    facts      what the rows say of themselves, in one pass
    markdown   text from anywhere, made harmless inside Markdown
    sections   one README for several configs
    svg        bars, histograms and grids as pictures
    plots      which of them a release has
    licences   the terms of the models that wrote it
    page       recipe, lock and facts become YAML and text
"""

from prequery.card.facts import Facts, measure
from prequery.card.page import Card, make, render

__all__ = ["Card", "Facts", "make", "measure", "render"]
