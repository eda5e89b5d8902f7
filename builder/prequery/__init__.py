"""prequery: instruction datasets that an aligned language model writes by itself.

    recipe -> prefix -> endpoint -> pass 1 (instructions) -> pass 2 (responses)
           -> columns -> filters -> shards -> card -> release

`Magpie` is the `datasets` builder that runs all of it; `pipeline.py` is its table of contents.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prequery.magpie import Magpie

__version__ = "0.1.0"

__all__ = ["Magpie", "__version__"]


def __getattr__(name: str) -> Any:
    # `datasets` takes over a second to import; the command line's help should not.
    if name == "Magpie":
        from prequery.magpie import Magpie

        return Magpie
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
