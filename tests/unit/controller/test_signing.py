"""Who signs receipts: nobody whose signature could not be verified."""

from pathlib import Path

import msgspec
import pytest

from lethe.controller.signing import SigningFiles
from lethe.crypto.sign import Signer
from lethe.formats.receiptkeys import encode_receipt_keys
from lethe.model.errors import ConflictError, CryptoError, InputError, ReceiptError, SignatureError
from tests.common.scrubs import trusted_keys

NOW, BEFORE = "2030-01-02T03:04:05Z", "2030-01-01T00:00:00Z"


@pytest.fixture
def signing(tmp_path: Path) -> SigningFiles:
    return SigningFiles(tmp_path / "private.pem", tmp_path / "receipt-keys.json")


def write(folder: Path, signer: Signer, *trusted: Signer, retired_at: str = "") -> None:
    keys = [msgspec.structs.replace(key, retired_at=retired_at) for key in trusted_keys(*trusted).values()]
    (folder / "private.pem").write_bytes(signer.to_pem())
    (folder / "receipt-keys.json").write_text(encode_receipt_keys(keys))


def test_files_are_read_anew(signing: SigningFiles, tmp_path: Path) -> None:
    old, new = Signer.generate(), Signer.generate()
    write(tmp_path, old, old)
    assert signing.signer(NOW).key_id == old.key_id
    write(tmp_path, new, old, new)
    assert signing.signer(NOW).key_id == new.key_id
    assert signing.trusted().keys() == {old.key_id, new.key_id}


def test_a_key_waits_until_it_is_published(signing: SigningFiles, tmp_path: Path) -> None:
    write(tmp_path, Signer.generate(), Signer.generate())
    with pytest.raises(ConflictError, match="published"):
        signing.signer(NOW)


def test_a_retired_key_signs_nothing(signing: SigningFiles, tmp_path: Path) -> None:
    signer = Signer.generate()
    write(tmp_path, signer, signer, retired_at=NOW)
    assert signing.signer(NOW).key_id == signer.key_id
    write(tmp_path, signer, signer, retired_at=BEFORE)
    with pytest.raises(SignatureError, match="helm upgrade"):
        signing.signer(NOW)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("private.pem", None, InputError),
        ("private.pem", b"x", CryptoError),
        ("receipt-keys.json", None, InputError),
        ("receipt-keys.json", b"x", ReceiptError),
    ],
)
def test_a_wrong_file_is_found_before_anything_is_done(
    signing: SigningFiles, tmp_path: Path, name: str, content: bytes | None, error: type[Exception]
) -> None:
    signer = Signer.generate()
    write(tmp_path, signer, signer)
    signing.check()
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        signing.check()
