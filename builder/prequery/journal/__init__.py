"""The journal: every finished answer, kept before it is used.

One journal for each fingerprint, outside of any output folder:

    header.json               what the answers were made with
    <writer>-000000.jsonl     write-ahead log: a line an answer, while it is being filled
    <...>-<sha256>.parquet    sealed segment: the answers of one full log to one pass
    leases/                   which builder works on which slots, and who is alive
    MANIFEST.json             written once by `freeze`: nothing comes or goes after it

An answer counts as soon as its line is written, survives power loss after the next `sync`, and is
sealed when its log is full. Several builders may write one journal, on one machine or on many. On
an object store everything but the logs is there; the logs stay on the machine that writes them.
"""

from prequery.journal.journal import Journal, Limits
from prequery.journal.lines import Key, Pass
from prequery.journal.places import folder_for, home

__all__ = ["Journal", "Key", "Limits", "Pass", "folder_for", "home"]
