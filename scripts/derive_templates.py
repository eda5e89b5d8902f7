"""Print what is derived from each chat template of a folder, or why it is refused.

    .venv/bin/python scripts/derive_templates.py FOLDER [--bos TEXT] [--date 2026-01-31]

TRL's wheel holds such a folder, `trl/chat_templates`, with the templates of many families.
"""

import argparse
import asyncio
from pathlib import Path

from prequery.errors import PrefixError
from prequery.prefix.derivation import unproven
from prequery.prefix.template import ChatTemplate
from prequery.recipe import Generator


def row(path: Path, bos: str, date: str) -> str:
    """Return one line of the table."""
    special = {"bos_token": bos, "eos_token": "<eos>"}
    template = ChatTemplate(path.read_text(encoding="utf-8"), path.name, special)
    try:
        prefix = asyncio.run(unproven(template, Generator("any/model", "0" * 40, date=date)))
    except PrefixError as error:
        return f"{path.stem}\trefused: {error.what}"
    shown = [prefix.text, prefix.suffix, prefix.answer, prefix.think, prefix.history]
    refused = "; ".join(f"{form}: {why}" for form, why in prefix.refused.items())
    return "\t".join([path.stem, *map(repr, shown), ",".join(prefix.trims), refused])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bos", default="<bos>")
    parser.add_argument("--date", default="2026-01-31")
    given = parser.parse_args()
    print("template\tprefix\tsuffix\taround a response\tthoughts\thistory\ttrims\trefused")
    for found in sorted(given.folder.glob("*.jinja")):
        print(row(found, given.bos, given.date))
