"""`prequery card`: every number on a card is held against the data."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

import judged_release as judged
from hub import Hub
from prequery import Magpie, cards
from prequery.card import sections
from prequery.card.differences import in_text
from prequery.errors import CardError
from prequery.options import Options
from prequery.transport import Patience
from scripted_tgi import ScriptedTgi, recipe_text

HAND = "Our own words: 12,345 rows of joy.\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two configs: one that was built against a server, one with judges."""
    place = tmp_path_factory.mktemp("release")
    path = place / "recipe" / "scripted.yaml"
    path.parent.mkdir()
    path.write_text(recipe_text())
    out = place / "out"
    with pytest.MonkeyPatch.context() as patch, ScriptedTgi().serving() as server:
        patch.setenv("PREQUERY_HOME", str(place / "home"))
        patience = Patience(first_wait_s=0, longest_wait_s=0)
        options = Options(endpoints=(server.url,), patience=patience)
        Magpie(path, options=options).download_and_prepare(out, file_format="parquet")
    judged.write(out, [judged.row(slot) for slot in range(400)])
    readme = (out / "README.md").read_text()
    (out / "README.md").write_text(
        readme.replace("<!-- prequery: begin chat", HAND + "\n" + "<!-- prequery: begin chat")
    )
    return out


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "copy"))


def differences(place: Path) -> list[str]:
    return [f"{c.config}: {one}" for c in cards.check(str(place)) for one in c.found]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_release_of_two_configs_is_what_its_data_gives(release: Path) -> None:
    checked = list(cards.check(str(release)))

    assert [(one.config, one.found) for one in checked] == [("chat", ()), ("scripted", ())]
    assert min(one.numbers for one in checked) > 100
    assert HAND in (release / "README.md").read_text()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from prequery.cli import main; sys.argv[0] = 'prequery'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "card", *arguments], capture_output=True, text=True
    )


def test_the_command_says_how_many_numbers_are_right(release: Path) -> None:
    done = run(str(release), "--check")

    assert done.returncode == 0, done.stderr
    assert "scripted: " in done.stdout
    assert " numbers, all what the data gives" in done.stdout


def test_the_command_fails_and_names_an_edited_number(copy: Path) -> None:
    edit(copy / "README.md", "\n400 instructions", "\n401 instructions")

    done = run(str(copy), "--check")

    assert done.returncode == 1
    assert "says '401', the data gives '400'" in done.stderr
    assert run(str(copy)).returncode == 0
    assert run(str(copy), "--check").returncode == 0


def test_a_repository_and_a_copy_of_it_are_checked_where_they_are(
    release: Path, hub: Hub, tmp_path: Path
) -> None:
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("acme/data", repo_type="dataset")
    api.upload_folder(repo_id="acme/data", folder_path=release, repo_type="dataset")
    api.create_tag("acme/data", tag="chat-v1.2.0", repo_type="dataset")
    place = tmp_path / "copy"
    api.snapshot_download("acme/data", repo_type="dataset", local_dir=place)

    for where in (str(place), "hf://datasets/acme/data@chat-v1.2.0"):
        done = run(where, "--check")

        assert done.returncode == 0, done.stderr
        assert done.stdout.count("all what the data gives") == 2


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "| `response_words` | 6 |",
            "| `response_words` | 7 |",
            "What the rows measure, Column `length`, `response_words`, min: "
            "says '7', the data gives '6'",
        ),
        (
            "| rejected: `cut off at max_new_tokens` | 20 | 4.8 % |",
            "| rejected: `cut off at max_new_tokens` | 20 | 1.8 % |",
            "share: says '1.8 %', the data gives '4.8 %'",
        ),
        (" Built with Llama", " Built", "Licence and terms: says"),
        ("num_examples: 400", "num_examples: 399", "chat, splits, train, num_examples: says '399'"),
        ("- n<1K", "- 1M<n<10M", "size_categories, 0: says '1M<n<10M', the data gives 'n<1K'"),
        ("  version: 1.2.0", "  version: 1.2.1", "YAML, configs, chat, version: says '1.2.1'"),
        ("- llama3.3", "- mit", "YAML, license"),
        ("| 1,834 |", "| 18 |", "requests of all attempts, value: says '18'"),
        ("| 3.5, of all", "| 0.5, of all", "says '0.5, of all builders together'"),
        ("\n## Limitations, measured\n", "\n", "Limitations, measured"),
    ],
)
def test_what_was_edited_is_named(copy: Path, old: str, new: str, found: str) -> None:
    edit(copy / "README.md", old, new)

    told = differences(copy)

    assert len(told) >= 1
    assert any(found in one for one in told), told


def test_rows_that_were_edited_are_named(copy: Path) -> None:
    shard = copy / "chat/train-00000-of-00001.parquet"
    table = pq.read_table(shard)
    worst = table.set_column(
        table.column_names.index("response_words"),
        "response_words",
        [[None if n == 3 else v for n, v in enumerate(table["response_words"].to_pylist())]],
    )
    pq.write_table(worst.cast(table.schema), shard)

    told = differences(copy)

    assert any("sha256" in one for one in told)
    assert "chat: Fields, `response_words`, nulls: says '0', the data gives '1'" in told


def test_a_row_that_is_missing_is_named(copy: Path) -> None:
    shard = copy / "chat/train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(shard).slice(1), shard)

    told = differences(copy)

    place = "chat: chat.lock.json, files, chat/train-00000-of-00001.parquet"
    assert f"{place}, rows: says '400', the data gives '399'" in told
    assert any("accepted rows are noted as 400, found as 399" in one for one in told)


def test_an_edited_or_missing_plot_is_named(copy: Path) -> None:
    plot = copy / "plots/chat/categories.svg"
    edit(plot, "Math: ", "Math: 9")
    (copy / "plots/chat/lengths.svg").unlink()

    told = differences(copy)

    assert any(one.startswith("chat: plots/chat/categories.svg: says ") for one in told)
    assert "chat: plots/chat/lengths.svg: is missing, the data gives 'one'" in told


def test_hand_written_words_are_nobodys_claim(copy: Path) -> None:
    edit(copy / "README.md", "12,345", "54,321")

    assert differences(copy) == []


def test_a_section_without_a_lock_is_named(copy: Path) -> None:
    (copy / "scripted.lock.json").unlink()

    assert any(
        one.startswith("scripted: scripted.lock.json: is missing") for one in differences(copy)
    )


def test_a_folder_without_a_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="there is no lock"):
        list(cards.check(str(tmp_path)))


def test_a_card_is_made_anew_byte_for_byte(release: Path, copy: Path) -> None:
    (copy / "README.md").unlink()
    shutil.rmtree(copy / "plots")

    assert cards.rewrite(str(copy)) == ["chat", "scripted"]

    for path in ("plots/chat/lengths.svg", "plots/scripted/lengths.svg"):
        assert (copy / path).read_bytes() == (release / path).read_bytes()
    old, new = ((place / "README.md").read_text() for place in (release, copy))
    for config in ("chat", "scripted"):
        assert sections.section_of(new, config) == sections.section_of(old, config)


def test_a_template_of_ones_own_is_kept_and_checked(copy: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text("# {{ recipe.name }}\n\nMine: {{ facts.rows }} rows.\n")

    assert run(str(copy), "--template", str(mine)).returncode == 0

    assert "Mine: 400 rows." in (copy / "README.md").read_text()
    assert (copy / "chat.card.jinja").read_text() == mine.read_text()
    assert differences(copy) == []
    edit(copy / "README.md", "Mine: 400", "Mine: 401")
    assert differences(copy) == ["chat: `chat`, 'Mine: … rows.': says '401', the data gives '400'"]


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ recipe.nmae }}", "has no attribute 'nmae'"),
        ("{% if %}", "the card's template is no Jinja"),
        ("{{ ''.__class__.__mro__ }}", "is unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("<!-- prequery: end chat -->", "one of the marks"),
    ],
)
def test_a_broken_template_is_refused_and_the_card_stays(
    copy: Path, tmp_path: Path, template: str, what: str
) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text(template)
    before = (copy / "README.md").read_bytes()

    done = run(str(copy), "--template", str(mine))

    assert done.returncode == 1
    assert what in done.stderr
    assert (copy / "README.md").read_bytes() == before
    assert not (copy / "chat.card.jinja").exists()


def test_a_released_readme_is_a_card_too(release: Path) -> None:
    readme = (release / "README.md").read_text()

    alone = sections.merged(None, readme, "chat")

    assert sections.names(alone) == ["chat"]
    assert sections.merged(readme, readme, "chat") == readme
    assert sections.block_of(alone)["license"] == ["gemma", "llama3.3"]
    assert sections.merged(alone, readme, "scripted").count("prequery: begin") == 2


def test_differences_of_lines_are_named_by_their_heading() -> None:
    told = [str(one) for one in in_text("## A\n\nx\n", "## A\n\nx\n\ny 1\n")]

    assert told == ["A: is missing, the data gives 'y 1'"]


def test_a_check_changes_nothing(release: Path) -> None:
    def digest() -> dict[str, str]:
        files = [path for path in sorted(release.rglob("*")) if path.is_file()]
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = digest()
    list(cards.check(str(release)))

    assert digest() == before
    assert json.loads((release / "chat.lock.json").read_text())["files"]
