"""A recipe: read, checked and fingerprinted.

Everything that can change a value is in the recipe. What only changes speed or place (the
endpoint, its token, concurrency, folders) may stand there but enters no fingerprint.
"""

from prequery.recipe.parts import (
    LOCAL,
    Endpoint,
    EndpointProtocol,
    Generator,
    Recipe,
    Release,
    Sampling,
    Setting,
)
from prequery.recipe.reading import bundled_names, check_url, find, load, read

__all__ = [
    "LOCAL",
    "Endpoint",
    "EndpointProtocol",
    "Generator",
    "Recipe",
    "Release",
    "Sampling",
    "Setting",
    "bundled_names",
    "check_url",
    "find",
    "load",
    "read",
]
