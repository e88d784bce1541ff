import pytest

from lethe.crypto.aead import RecordCipher
from lethe.formats.stream import open_stream, seal_stream, sealed_length
from lethe.model.errors import AuthenticationError, IntegrityError

SIZE = 64
CIPHER = RecordCipher(bytes(32), bytes(12))


@pytest.mark.parametrize("length", [0, 1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE, 3 * SIZE + 5])
def test_what_was_sealed_opens(length: int) -> None:
    plain = bytes(index % 251 for index in range(length))
    sealed = seal_stream(CIPHER, SIZE, plain)
    assert len(sealed) == sealed_length(length, SIZE)
    assert open_stream(CIPHER, SIZE, sealed) == plain


@pytest.mark.parametrize("length", [0, SIZE - 1, SIZE, 3 * SIZE])
def test_every_truncation_is_an_error(length: int) -> None:
    sealed = seal_stream(CIPHER, SIZE, bytes(length))
    for cut in range(len(sealed)):
        with pytest.raises((IntegrityError, AuthenticationError)):
            open_stream(CIPHER, SIZE, sealed[:cut])


def test_a_cut_at_a_record_boundary_is_named() -> None:
    with pytest.raises(IntegrityError, match="cut off"):
        open_stream(CIPHER, SIZE, seal_stream(CIPHER, SIZE, bytes(3 * SIZE))[: 2 * (SIZE + 16)])


def test_swapped_repeated_and_appended_records_are_errors() -> None:
    full = SIZE + 16
    sealed = seal_stream(CIPHER, SIZE, bytes(2 * SIZE))
    first, second, last = sealed[:full], sealed[full : 2 * full], sealed[2 * full :]
    for wrong in (second + first + last, first + first + last, first + second + second + last, first + last):
        with pytest.raises(AuthenticationError):
            open_stream(CIPHER, SIZE, wrong)
