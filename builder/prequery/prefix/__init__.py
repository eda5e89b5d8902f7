"""The prefix of any chat model, derived from its own chat template and proven.

There is no table of models. The model's own template renders conversations of known words; what
stands around the words are the pieces that any prompt is put together from.
"""

from prequery.prefix.derivation import derive
from prequery.prefix.proof import check_model, prove
from prequery.prefix.shape import Prefix

__all__ = ["Prefix", "check_model", "derive", "prove"]
