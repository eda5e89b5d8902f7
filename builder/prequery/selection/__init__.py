"""Which attempts become rows, and why each other one does not.

The accepted rows are the first `rows` slots, by number, that pass. Where a filter chooses among
rows, the candidates are the first `candidates` slots that pass the filters before it; it and those
behind it are applied to these, and the rows are the first `rows` of what is left.

Attempts come in slot order, and rows go to disk as they come: memory holds no text, and does not
grow. Columns that see every row go through them on disk, and keep what they need; each slot costs
a few bytes besides.

    steps      columns and filters, in the order in which they are gone through
    ledger     what became of every slot, and what it cost
    report     what each filter let pass, and a few rows that it did not
    alone      one row, judged by what it says itself
    together   all rows, judged by what is known of all of them
    selector   attempts in slot order become rows on disk
"""

from prequery.selection.alone import filter_reason
from prequery.selection.report import Example, Step
from prequery.selection.selector import Selection, Selector

__all__ = ["Example", "Selection", "Selector", "Step", "filter_reason"]
