"""Which attempts become rows, and why each other one does not.

The accepted rows are the first `rows` slots, by number, that pass. Attempts come in slot order, and
rows go to disk as they come: memory holds no text, and does not grow. Columns that see every
row go through them on disk, and keep what they need; each slot costs a few bytes besides.

    steps      columns and filters, in the order in which they are gone through
    ledger     what became of every slot, and what it cost
    alone      one row, judged by what it says itself
    together   all rows, judged by what is known of all of them
    selector   attempts in slot order become rows on disk
"""

from prequery.selection.alone import filter_reason
from prequery.selection.selector import Selection, Selector

__all__ = ["Selection", "Selector", "filter_reason"]
