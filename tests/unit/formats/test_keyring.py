from collections.abc import Callable
from dataclasses import replace

import pytest

from lethe.crypto.hpke import PrivateKey
from lethe.formats.binding import Binding
from lethe.formats.keyring import (
    Keyring,
    Stanza,
    build_keyring,
    encode_keyring,
    open_keyring,
    open_stanza,
    parse_keyring,
    verify_keyring,
)
from lethe.model.errors import AuthenticationError, CryptoError, FormatError, KeyringError, UnwrapError

DATASET = "41c0" * 8
DEKS = {1: b"1" * 32, 2: b"2" * 32}
SERVICE, RECOVERY = PrivateKey.generate("X25519"), PrivateKey.generate("X25519")


def binding(epoch: int = 1, **changes: object) -> Binding:
    fields: dict[str, object] = {"tenant": "acme", "namespace": "acme", "criticality": "sensitive", **changes}
    return Binding(dataset_id=DATASET, epoch=epoch, **fields)  # type: ignore[arg-type]


def small(deks: dict[int, bytes] | None = None) -> bytes:
    deks = deks or {1: DEKS[1]}
    return build_keyring(
        DATASET,
        deks,
        [
            pair
            for epoch in deks
            for pair in (
                (binding(epoch, key="default", version=2), SERVICE.public_key()),
                (binding(epoch), RECOVERY.public_key()),
            )
        ],
    )


def test_each_recipient_opens_each_epoch() -> None:
    keyring = parse_keyring(small(DEKS))
    assert keyring.dataset_id == DATASET
    assert keyring.epochs() == [1, 2]
    assert open_keyring(keyring, SERVICE) == open_keyring(keyring, RECOVERY) == DEKS


@pytest.mark.parametrize("suite", ["X25519", "MLKEM768-X25519"])
def test_both_suites_open(suite: str) -> None:
    key = PrivateKey.generate(suite)  # type: ignore[arg-type]
    keyring = parse_keyring(build_keyring(DATASET, {1: DEKS[1]}, [(binding(), key.public_key())]))
    assert open_stanza(keyring.stanzas[0], DATASET, key) == DEKS[1]


def test_stanzas_say_for_whom_they_are() -> None:
    keyring = parse_keyring(small(DEKS))
    found = keyring.stanzas_for(namespace="acme")
    assert [(stanza.epoch, stanza.key, stanza.version) for stanza in found] == [(1, "default", 2), (2, "default", 2)]
    assert keyring.stanzas_for(namespace="acme", key="default") == found
    assert keyring.stanzas_for(namespace="acme", key="other") == keyring.stanzas_for(namespace="globex") == []


def test_encoding_is_deterministic() -> None:
    data = small(DEKS)
    assert encode_keyring(DATASET, parse_keyring(data).stanzas, DEKS) == data


def test_every_flipped_byte_is_an_error() -> None:
    data = bytearray(small())
    for offset in range(len(data)):
        for bit in (0x01, 0x80):
            data[offset] ^= bit
            with pytest.raises((FormatError, CryptoError)):
                verify_keyring(parse_keyring(bytes(data)), 1, DEKS[1])
            data[offset] ^= bit
    verify_keyring(parse_keyring(bytes(data)), 1, DEKS[1])


def test_every_truncation_and_extension_is_an_error() -> None:
    data = small(DEKS)
    for length in range(len(data)):
        with pytest.raises(KeyringError):
            parse_keyring(data[:length])
    with pytest.raises(KeyringError, match="too many"):
        parse_keyring(data + b"\0")


def changed(change: Callable[[Stanza], Stanza]) -> Keyring:
    keyring = parse_keyring(small())
    return replace(keyring, stanzas=(change(keyring.stanzas[0]), *keyring.stanzas[1:]))


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "globex"},
        {"namespace": "globex"},
        {"key": "other"},
        {"version": 3},
        {"criticality": "standard"},
        {"epoch": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_stanza_opens_only_for_what_it_is_bound_to(changes: dict[str, object]) -> None:
    keyring = changed(lambda stanza: replace(stanza, **changes))  # type: ignore[arg-type]
    with pytest.raises(UnwrapError):
        open_stanza(keyring.stanzas[0], DATASET, SERVICE)
    with pytest.raises((AuthenticationError, KeyringError)):
        verify_keyring(keyring, 1, DEKS[1])


def test_a_stanza_of_another_dataset_does_not_open() -> None:
    with pytest.raises(UnwrapError):
        open_stanza(parse_keyring(small()).stanzas[0], "00" * 16, SERVICE)


def test_another_datasets_keyring_under_this_id_does_not_open() -> None:
    foreign = replace(parse_keyring(small()), dataset_id="00" * 16)
    with pytest.raises(UnwrapError, match="none of the 2 stanzas"):
        open_keyring(foreign, RECOVERY)


def test_added_removed_and_swapped_stanzas_fail_the_mac() -> None:
    keyring = parse_keyring(small())
    first, second = keyring.stanzas
    for stanzas in ((first,), (second, first), (first, second, second)):
        with pytest.raises(AuthenticationError, match="added, removed or changed"):
            verify_keyring(replace(keyring, stanzas=stanzas), 1, DEKS[1])


def test_a_removed_epoch_fails_the_mac_of_the_other() -> None:
    keyring = parse_keyring(small(DEKS))
    kept = tuple(stanza for stanza in keyring.stanzas if stanza.epoch == 1)
    with pytest.raises(AuthenticationError):
        verify_keyring(replace(keyring, stanzas=kept, macs={1: keyring.macs[1]}), 1, DEKS[1])


def test_an_epoch_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyringError, match="no epoch 7, found \\[1\\]"):
        verify_keyring(parse_keyring(small()), 7, DEKS[1])


def test_a_stranger_learns_that_nothing_opens() -> None:
    with pytest.raises(UnwrapError, match="sealed to other keys"):
        open_keyring(parse_keyring(small()), PrivateKey.generate("X25519"))
    with pytest.raises(UnwrapError, match="sealed to other keys"):
        open_keyring(parse_keyring(small()), PrivateKey.generate())


STANZA = parse_keyring(small()).stanzas[0]


@pytest.mark.parametrize(
    ("stanzas", "message"),
    [
        ([], "no stanza"),
        ([STANZA, STANZA], "one key twice"),
        ([replace(STANZA, sealed=STANZA.sealed[:-1])], "cut off|inside an entry|too many|not a Kubernetes name"),
        ([replace(STANZA, version=0)], "counts from 1"),
        ([replace(STANZA, key="")], "has version 0"),
        ([replace(STANZA, key="No Name")], "not a Kubernetes name"),
        ([replace(STANZA, tenant="")], "not a Kubernetes name"),
        ([replace(STANZA, namespace="x" * 300)], "at most 253"),
        ([replace(STANZA, criticality="odd")], "'odd' cannot be written"),  # type: ignore[arg-type]
        ([replace(STANZA, epoch=9)], "ascending"),
    ],
)
def test_a_writer_refuses_what_a_reader_would(stanzas: list[Stanza], message: str) -> None:
    with pytest.raises(KeyringError, match=message):
        encode_keyring(DATASET, stanzas, {1: DEKS[1]})


def test_a_recipient_of_another_dataset_is_refused() -> None:
    with pytest.raises(KeyringError, match="not of 00"):
        build_keyring("00" * 16, DEKS, [(binding(), SERVICE.public_key())])


def test_a_key_of_the_wrong_length_is_refused() -> None:
    stanza = replace(STANZA, sealed=SERVICE.public_key().seal(b"short", STANZA.binding(DATASET).info()))
    with pytest.raises(UnwrapError, match="5 bytes"):
        open_stanza(stanza, DATASET, SERVICE)
