"""Folders that ship with the package: recipes and card templates."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

Folder = Literal["configs", "dataset_cards"]

CHECKOUT = Path(__file__).parents[2]


def bundled(folder: Folder) -> Traversable:
    """Return a folder that ships with the package: in the wheel, or at the top of a checkout."""
    packaged = files("prequery") / folder
    return packaged if packaged.is_dir() else CHECKOUT / folder
