from lethe.formats.padding import padme


def test_lengths_grow_by_at_most_an_eighth_and_stay_once_padded() -> None:
    for length in [*range(4096), *(2**exponent + step for exponent in range(12, 50, 3) for step in (-1, 0, 1, 12345))]:
        padded = padme(length)
        assert length <= padded <= length * 1.12 + 1
        assert padme(padded) == padded


def test_known_lengths() -> None:
    assert [padme(length) for length in (0, 1, 2, 9, 100, 1000, 1025, 1_000_000)] == [
        0, 1, 2, 10, 104, 1024, 1088, 1_015_808,
    ]  # fmt: skip


def test_few_lengths_remain() -> None:
    assert len({padme(length) for length in range(1 << 16)}) < 250
