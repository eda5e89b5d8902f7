"""Where a think block ends and the reply begins."""

import pytest

from prequery.thinking import Reply, split, whole

MARKERS = ("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "is_open", "reply"),
    [
        ("<think>\nhm\n</think>\n\nYes.", False, Reply("hm", "Yes.")),
        ("hm\n</think>\n\nYes.", True, Reply("hm", "Yes.")),
        ("<think>hm</think>Yes.", True, Reply("hm", "Yes.")),
        ("<think></think>Yes.", False, Reply("", "Yes.")),
        ("<think>\nnever closed", False, Reply("never closed", "")),
        ("never closed", True, Reply("never closed", "")),
        ("Write </think> to end it.", False, Reply(None, "Write </think> to end it.")),
        ("<think>a</think>b</think>c", False, Reply("a", "b</think>c")),
        ("  Yes.  ", False, Reply(None, "Yes.")),
        ("", False, Reply(None, "")),
        ("", True, Reply("", "")),
    ],
)
def test_a_block_at_the_beginning_is_split_off(text: str, is_open: bool, reply: Reply) -> None:
    assert split(text, MARKERS, is_open) == reply


def test_a_model_without_markers_says_everything() -> None:
    assert split("<think>a</think>b", None) == Reply(None, "<think>a</think>b")
    assert whole(" a ", None) == "a"


def test_a_kept_block_has_the_marker_that_the_prompt_opened() -> None:
    assert whole("hm</think>Yes.", MARKERS, True) == "<think>\nhm</think>Yes."
    assert whole("<think>hm</think>Yes.", MARKERS, True) == "<think>hm</think>Yes."
    assert whole("Yes.", MARKERS, False) == "Yes."
