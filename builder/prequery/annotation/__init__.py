"""Measure somebody else's dataset with the same columns and filters.

source: open a dataset and stream its rows
given: a row as the dataset has it, under our names
pinning: from a dataset's name to a recipe that pins it
stream: rows on their way through the judges
annotating: all of it, stage after stage
"""

from prequery.annotation.annotating import Annotated, annotate
from prequery.annotation.pinning import Wish, completed, default_name, pinned

__all__ = ["Annotated", "Wish", "annotate", "completed", "default_name", "pinned"]
