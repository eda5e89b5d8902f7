"""The dataset card: measured from a release's Parquet files, then rendered.

Tables -> `measure` -> `Facts` -> `render` -> README.md. Neither touches disk or network, and no
number on a card comes from anywhere but the tables and the lock.

    facts      what the rows say of themselves, in one pass
    markdown   text from anywhere, made harmless inside Markdown
    page       recipe, lock and facts become YAML and text
"""

from prequery.card.facts import Facts, measure
from prequery.card.page import render

__all__ = ["Facts", "measure", "render"]
