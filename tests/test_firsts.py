from prequery.firsts import Firsts


def test_the_lowest_slot_of_a_text_is_known_in_any_order() -> None:
    firsts = Firsts()

    assert [firsts.note("a", 5), firsts.note("b", 2), firsts.note("a", 3), firsts.note("a", 9)] == [
        5,
        2,
        3,
        3,
    ]


def test_a_hundred_thousand_texts_keep_their_slots_as_the_table_grows() -> None:
    firsts = Firsts()
    for slot in range(100_000):
        assert firsts.note(f"text {slot}", slot) == slot

    assert all(firsts.note(f"text {slot}", 10**9) == slot for slot in range(0, 100_000, 97))


def test_slots_beyond_32_bits_are_kept_too() -> None:
    firsts = Firsts()
    assert firsts.note("a", 7) == 7

    assert firsts.note("b", 1 << 40) == 1 << 40
    assert [firsts.note("b", 1 << 41), firsts.note("a", 1 << 41)] == [1 << 40, 7]
