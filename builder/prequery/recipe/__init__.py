"""A recipe: read, checked and fingerprinted.

Everything that can change a value is in the recipe. What only changes speed or place (the
endpoint, its token, concurrency, folders) may stand there but enters no fingerprint.
"""

from prequery.recipe.annotation import ALL_ROWS, ROLES, Annotation, AnyRecipe, Dataset, Fields
from prequery.recipe.parts import (
    DEFAULT,
    LOCAL,
    OWN,
    TRANSFORMERS,
    Endpoint,
    EndpointProtocol,
    FollowUp,
    Generator,
    Other,
    Preference,
    Recipe,
    Release,
    Sampling,
    Setting,
    Template,
)
from prequery.recipe.reading import (
    bundled_names,
    check_url,
    find,
    load,
    read,
    read_annotation,
    read_text,
)

__all__ = [
    "ALL_ROWS",
    "DEFAULT",
    "LOCAL",
    "OWN",
    "ROLES",
    "TRANSFORMERS",
    "Annotation",
    "AnyRecipe",
    "Dataset",
    "Endpoint",
    "EndpointProtocol",
    "Fields",
    "FollowUp",
    "Generator",
    "Other",
    "Preference",
    "Recipe",
    "Release",
    "Sampling",
    "Setting",
    "Template",
    "bundled_names",
    "check_url",
    "find",
    "load",
    "read",
    "read_annotation",
    "read_text",
]
