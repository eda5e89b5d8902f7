from pathlib import Path

import pytest

from prequery import columns
from prequery.errors import RecipeError
from prequery.recipe import Recipe, bundled_names, check_url, load, read
from scripted_tgi import recipe_text


def refusal(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        read(text, "r.yaml")
    return caught.value


def test_a_file_that_a_column_reads_stands_beside_the_recipe(tmp_path: Path) -> None:
    changed = {"columns": "[{contamination: {files: {items.txt: line}}}]", "filters": "[]"}
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(**changed))

    with pytest.raises(RecipeError) as error:
        load(str(path))
    (tmp_path / "items.txt").write_text("one")
    first = load(str(path))
    before = first.build_hash
    (tmp_path / "items.txt").write_text("two")
    second = load(str(path))

    assert error.value.what == (
        "column 'contamination' reads the file 'items.txt', which is not there"
    )
    assert first.fingerprint == second.fingerprint
    assert second.build_hash != before


def test_every_bundled_recipe_is_valid_and_bears_the_name_of_its_file() -> None:
    names = bundled_names()

    assert "smollm2-demo" in names
    assert [load(name).name for name in names] == names


@pytest.mark.parametrize(
    ("changed", "what", "where", "fix"),
    [
        (
            {"row": "5"},
            "unknown key 'row'",
            "r.yaml, line 10, row",
            "did you mean 'rows'? known: name, version, rows, candidates, seed, generator, "
            "instructions, responses, turns, follow_up, steering, think, responder, judges, "
            "preference, columns, filters, release, endpoint, max_attempts",
        ),
        (
            {"rows": "ten"},
            "rows is 'ten'",
            "r.yaml, line 3, rows",
            "allowed: a whole number from 1 to 1000000000",
        ),
        (
            {"rows": "1e3"},
            "rows is 1000.0",
            "r.yaml, line 3, rows",
            "allowed: a whole number from 1 to 1000000000",
        ),
        (
            {"rows": "yes"},
            "rows is 'yes'",
            "r.yaml, line 3, rows",
            "allowed: a whole number from 1 to 1000000000",
        ),
        (
            {"rows": "true"},
            "rows is True",
            "r.yaml, line 3, rows",
            "allowed: a whole number from 1 to 1000000000",
        ),
        (
            {"version": "1.0"},
            "version is 1.0",
            "r.yaml, line 2, version",
            "expected: three numbers, as in 1.0.0",
        ),
        (
            {"generator": "{model: a/b, revision: main}"},
            "revision is 'main'",
            "r.yaml, line 5, generator.revision",
            "expected: the full commit hash, 40 hexadecimal digits; a branch or tag can move",
        ),
        (
            {"instructions": "[{temperature: 0, max_new_tokens: 5}]"},
            "temperature is 0",
            "r.yaml, line 6, instructions[0].temperature",
            "allowed: a number over 0, at most 100",
        ),
        (
            {"instructions": "[{max_new_tokens: 5}]"},
            "temperature is null: greedy decoding writes the same instruction in every slot",
            "r.yaml, line 6, instructions[0].temperature",
            "the paper uses 1.0 to 1.25",
        ),
        (
            {"instructions": "[{temperature: 1, top_p: 1.5, max_new_tokens: 5}]"},
            "top_p is 1.5",
            "r.yaml, line 6, instructions[0].top_p",
            "allowed: a number over 0, at most 1",
        ),
        (
            {"instructions": "[]"},
            "instructions is [], not a list",
            "r.yaml, line 6, instructions",
            "write one `- ` a line",
        ),
        (
            {"responses": "{top_p: 0.9, max_new_tokens: 5}"},
            "top_p is set, but temperature is null, which is greedy",
            "r.yaml, line 7, responses.top_p",
            "set temperature, or remove the others",
        ),
        (
            {"turns": "17"},
            "turns is 17",
            "r.yaml, line 10, turns",
            "allowed: a whole number from 1 to 16",
        ),
        (
            {"columns": "[lenght]"},
            "unknown column 'lenght'",
            "r.yaml, line 8, columns",
            f"did you mean 'length'? known: {', '.join(column.name for column in columns.ALL)}",
        ),
        (
            {"filters": "[3]"},
            "3 is not a filter",
            "r.yaml, line 9, filters",
            'write an expression, as language == "en", or one of top, balance, at_most',
        ),
        (
            {"endpoint": "{url: 'http://h', token_env: hf_abc-secret}"},
            "token_env is not the name of an environment variable",
            "r.yaml, line 10, endpoint.token_env",
            "export the token in a variable and write that variable's name here",
        ),
        (
            {"endpoint": "{url: 'http://h', protocol: completion}"},
            "protocol is 'completion'",
            "r.yaml, line 10, endpoint.protocol",
            "did you mean 'completions'? allowed: auto, tgi, completions, tei",
        ),
        (
            {"endpoint": "{url: local, protocol: completions}"},
            "protocol is 'completions', but the embedded endpoint speaks TGI's",
            "r.yaml, line 10, endpoint.protocol",
            "remove protocol, or name the address of another endpoint in url",
        ),
        (
            {"max_attempts": "3"},
            "max_attempts is 3",
            "r.yaml, line 10, max_attempts",
            "allowed: a whole number from 20 to 10000000000",
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_key_and_fix(
    changed: dict[str, str], what: str, where: str, fix: str
) -> None:
    error = refusal(recipe_text(**changed))

    assert error.args == (what, where, fix)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &x 1\nb: *x", "the recipe uses a YAML alias"),
        ("a: 1\na: 2", "the key 'a' appears twice, first on line 1"),
        ("a: .nan", ".nan is not a number one can use"),
        ("[" * 5000, "the recipe is nested deeper than 32 levels"),
        ("a: !!python/name:os.system x", "the recipe uses the tag 'tag:yaml.org,2002:python/name:"),
        ("a: [1", "the recipe is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("", "the recipe is empty"),
        ("a: 1\n---\nb: 2", "the file has a second document"),
        ("- a", "the recipe is ['a'], not a mapping of keys"),
        ("x" * (1 << 20) + "y", "the recipe is larger than 1 MiB"),
        ("a: \x00", "the recipe is not YAML: unacceptable character"),
    ],
)
def test_hostile_yaml_is_refused(text: str, what: str) -> None:
    assert refusal(text).what.startswith(what)


def test_a_missing_recipe_names_the_closest_bundled_one() -> None:
    with pytest.raises(RecipeError) as caught:
        load("smollm-demo")

    assert caught.value.what == "there is no recipe 'smollm-demo'"
    assert caught.value.fix.startswith("did you mean 'smollm2-demo' or ")


def test_an_address_with_credentials_is_refused_and_not_repeated() -> None:
    with pytest.raises(RecipeError) as caught:
        check_url("https://user:canary-secret@host:1/x", "--endpoint")

    assert "canary-secret" not in str(caught.value)
    assert caught.value.what == "the address of the endpoint at 'host:1' holds credentials"


def fingerprints(**changed: str) -> tuple[str, str]:
    recipe = read(recipe_text(**changed), "r.yaml")
    return recipe.fingerprint, recipe.build_hash


def test_only_what_decides_an_answer_changes_the_fingerprint() -> None:
    base, built = fingerprints()

    for changed in ({"seed": "4"}, {"responses": "{max_new_tokens: 99}"}):
        assert fingerprints(**changed)[0] != base
    for changed in (
        {"rows": "21"},
        {"columns": "[length]"},
        {"filters": "[]"},
        {"version": "2.0.0"},
    ):
        assert fingerprints(**changed)[0] == base
        assert fingerprints(**changed)[1] != built
    for changed in (
        {"release": "{repo: a/b}"},
        {"endpoint": "http://h:1"},
        {"endpoint": "{url: 'http://h:1', protocol: completions}"},
        {"max_attempts": "999"},
    ):
        assert fingerprints(**changed) == (base, built)


def generator(keys: str) -> str:
    return recipe_text(generator=f"{{model: acme/m, revision: '{'5' * 40}', {keys}}}")


@pytest.mark.parametrize(
    ("keys", "what", "fix"),
    [
        (
            "template: hub",
            "template is 'hub'",
            "allowed: endpoint, tokenizer, {tokenizer: FOLDER}, {gguf: FILE}, {file: FILE}",
        ),
        (
            "template: {gguf: a, file: b}",
            "template names 2 places, not one",
            "keep one of tokenizer, gguf and file",
        ),
        (
            "template: {gguf: a, bos_token: b}",
            "bos_token and eos_token are those of a template file; this source tells its own",
            "remove them",
        ),
        (
            "template: {jinja: a}",
            "unknown key 'jinja'",
            "known: tokenizer, gguf, file, bos_token, eos_token",
        ),
        (
            "date: 2026-01-31",
            "date is set, but the endpoint renders the template and cannot be told",
            "name the template too, as template: tokenizer",
        ),
        (
            "template: tokenizer, date: 2026-02-30",
            "date is '2026-02-30'",
            "expected: a date as 2026-01-31",
        ),
        (
            "template: tokenizer, thinking: 1",
            "thinking is 1",
            "allowed: true or false",
        ),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused(keys: str, what: str, fix: str) -> None:
    error = refusal(generator(keys))

    assert (error.what, error.fix) == (what, fix)


def test_where_a_template_is_and_what_it_is_told_decide_answers() -> None:
    keys = [
        "prefix: auto",
        "template: endpoint",
        "template: tokenizer",
        "template: {file: a}",
        "template: tokenizer, thinking: false",
        "template: tokenizer, date: 2026-01-31",
    ]
    plain, endpoint, *others = [read(generator(one), "r.yaml").fingerprint for one in keys]

    assert plain == endpoint
    assert len({plain, *others}) == 5


def test_spelling_and_order_of_a_recipe_do_not_change_its_fingerprint() -> None:
    plain = recipe_text(instructions="[{temperature: 1, top_p: 1, max_new_tokens: 64}]")
    other = recipe_text(
        instructions="[{max_new_tokens: 64, weight: 1.0, system: default, temperature: 1.0}]"
    )

    def hashed(text: str) -> Recipe:
        return read("\n".join(reversed(text.splitlines())), "r.yaml")

    assert hashed(other).build_hash == read(plain, "r.yaml").build_hash


def test_the_fingerprint_of_the_released_demo_never_changes() -> None:
    assert load("smollm2-demo").fingerprint[:12] == "c4cce60d5de2"


def test_an_unreadable_recipe_is_an_error_with_a_fix(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9\n")

    with pytest.raises(RecipeError) as caught:
        load(path)

    assert caught.value.args == (
        "the recipe is not UTF-8: byte 9 is 0xe9",
        str(path),
        "save it as UTF-8",
    )
