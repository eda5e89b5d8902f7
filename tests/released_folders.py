"""Releases in folders and on the Hub of the tests, for tests that read them."""

import json
from collections.abc import Mapping
from pathlib import Path

from hub import Hub
from prequery import Magpie, lock
from prequery.options import Options
from prequery.transport import Patience
from scripted_tgi import Json, ScriptedTgi, recipe_text

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
REPO = "acme/scripted"


class Small(Magpie):
    """Cuts shards after a few rows."""

    rows_per_shard = 7


def release(
    root: Path, name: str, server: ScriptedTgi | None = None, rows: int = 20, **changed: str
) -> Path:
    """Build into a folder of this name; a change to filters, columns or rows asks for no answer."""
    path = root / "recipes" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(recipe_text(rows, **changed))
    if server is None:
        with ScriptedTgi().serving() as own:
            return release(root, name, own, rows, **changed)
    options = Options((server.url,), journal=root / "journal", patience=AT_ONCE)
    Small(path, options=options).download_and_prepare(root / name, file_format="parquet")
    return root / name


def edit_lock(out: Path, edited: Mapping[str, object], honest: bool = False) -> None:
    """Change the lock, and where it is honest its digest too."""
    path = out / "scripted.lock.json"
    held: Json = json.loads(path.read_text())
    changed = held | dict(edited)
    path.write_text(lock.dump(changed) if honest else json.dumps(changed))


def upload(hub: Hub, out: Path, tag: str | None = None) -> str:
    """Put a folder on the Hub, tagged; return the commit."""
    api = hub.api()
    api.create_repo(REPO, repo_type="dataset", exist_ok=True)
    commit = api.upload_folder(repo_id=REPO, folder_path=out, repo_type="dataset")
    if tag:
        api.create_tag(REPO, tag=tag, repo_type="dataset")
    return str(commit.oid)
