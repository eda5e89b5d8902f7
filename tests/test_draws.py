from collections import Counter

from prequery.draws import choose, draw


def test_a_draw_depends_on_every_part_of_its_key_and_on_nothing_else() -> None:
    base = draw("f" * 64, 7, "instruction", 0, 0)

    others = {
        draw("e" * 64, 7, "instruction", 0, 0),
        draw("f" * 64, 8, "instruction", 0, 0),
        draw("f" * 64, 7, "response", 0, 0),
        draw("f" * 64, 7, "instruction", 1, 0),
        draw("f" * 64, 7, "instruction", 0, 1),
    }

    assert draw("f" * 64, 7, "instruction") == base
    assert len(others | {base}) == 6


def test_the_draws_of_a_released_version_never_change() -> None:
    drawn = [draw("0" * 64, slot, "instruction") for slot in range(3)]

    assert drawn == [5447215321672687308, 7332382443783695724, 8632741871430460920]


def test_a_draw_fits_a_signed_column_and_is_never_zero() -> None:
    drawn = [draw("a", slot, "response") for slot in range(10_000)]

    assert min(drawn) > 0
    assert max(drawn) < 2**63
    assert len(set(drawn)) == 10_000


def test_settings_are_chosen_in_proportion_to_their_weights() -> None:
    chosen = Counter(choose("a", slot, [1, 3, 0.0001]) for slot in range(8_000))

    assert 1_850 < chosen[0] < 2_150
    assert 5_850 < chosen[1] < 6_150
    assert chosen[2] < 10
