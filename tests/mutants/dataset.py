"""Mutants of the dataset format: each leaves out one check of a reader. The vectors should catch them all."""

from tests.mutants.mutant import Mutant

_ACCESS = "data/access.py"
_OBJECTS = "data/objects.py"
_HEADER = "formats/header.py"
_CONTENTS = "formats/contents.py"
_INDEX = "formats/index.py"
_KEYRING = "formats/keyring.py"
_RECIPIENTS = "data/recipients.py"
_STREAM = "formats/stream.py"


def _mutant(name: str, module: str, old: str, new: str) -> Mutant:
    return Mutant(name, module, old, new, ("tests/vectors/test_vectors.py", "tests/unit/formats"))


MUTANTS = [
    _mutant("take a keyring of another dataset", _RECIPIENTS, "if keyring.dataset_id != dataset_id:", "if False:"),
    _mutant("take an object of another length", _ACCESS, "if len(data) != entry.length:", "if False:"),
    _mutant("take another version of an object", _OBJECTS, "found.commitment, entry.commitment", "b'', b''"),
    _mutant("take an object of another epoch", _OBJECTS, "(found.epoch, found", "(entry.epoch, found"),
    _mutant("take another record size", _OBJECTS, "found.record_bits) != (", "record_bits) != ("),
    _mutant("take fill that is not zero", _OBJECTS, ".count(0) != size:", " is None:"),
    _mutant("take an object of another kind", _HEADER, "if header.kind is not kind:", "if False:"),
    _mutant("take another dataset's object", _HEADER, "if header.dataset_id != dataset_id:", "if False:"),
    _mutant("take a swapped object", _HEADER, "if header.object_id != object_id:", "if False:"),
    _mutant("believe any commitment", _HEADER, "if not is_equal(commitment, header.commitment):", "if False:"),
    _mutant("ignore the header's last bytes", _HEADER, "if zero or any(reserved):", "if zero:"),
    _mutant("ignore the header's reserved byte", _HEADER, "if zero or any(reserved):", "if any(reserved):"),
    _mutant("take an unknown suite", _HEADER, "if suite != SUITE:", "if False:"),
    _mutant("take epoch 0", _HEADER, "if epoch == 0:", "if False:"),
    _mutant("do not look at the pin", _INDEX, "    verify_pin(data, pin)\n", ""),
    _mutant("take bytes behind the names", _INDEX, " or stream.unused_data", ""),
    _mutant("take names without their checksum", _INDEX, "not stream.eof or ", ""),
    _mutant("take padding that is not zero", _INDEX, "if _has_nonzero(view[end:]):", "if False:"),
    _mutant("take names in any order", _INDEX, "if not all(map(lt, names, islice(names, 1, None))):", "if False:"),
    _mutant("take a file that is a folder", _INDEX, "    if both:", "    if False:"),
    _mutant("walk out of the folder", _INDEX, '(b"//", b"/./", b"/../")', '(b"//", b"/./")'),
    _mutant("take an absolute name", _INDEX, '(b"//", b"/./", b"/../")', '(b"/./", b"/../")'),
    _mutant("take modes beyond permissions", _INDEX, "max(columns[1]) > MODE_MASK", "max(columns[1]) > 0xFFFF"),
    _mutant("take objects without bound", _INDEX, "<= MAX_OBJECT_BYTES or", "<= 1 << 64 or"),
    _mutant("take one object twice", _INDEX, "if len({entry.id for entry in objects}) != len(objects):", "if False:"),
    _mutant("read records in a header", _INDEX, "or offset < HEADER_BYTES ", ""),
    _mutant("read behind an object's end", _INDEX, " or end > entry.length:", ":"),
    _mutant("take gaps and overlaps", _CONTENTS, "if (piece.offset, piece.record) != (offset, record):", "if False:"),
    _mutant("take records of no file", _CONTENTS, "if record != entry.records:", "if False:"),
    _mutant("take a stream without its end", _STREAM, "if last < TAG_BYTES:", "if False:"),
    _mutant("take a stanza of an unknown kind", _KEYRING, "if kind != _WHOLE:", "if False:"),
    _mutant("take a key without a version", _KEYRING, "if bool(key) != bool(version):", "if False:"),
    _mutant("take bytes behind the keyring", _KEYRING, "if cursor.position != len(data):", "if False:"),
    _mutant("do not check the MAC", _KEYRING, "verify_keyring(keyring, stanza.epoch, deks[stanza.epoch])", "pass"),
    _mutant("take one key twice", _KEYRING, "if len(set(named)) != len(named):", "if False:"),
]

_WRITER = "data/output_writer.py"


def _output(name: str, old: str, new: str) -> Mutant:
    return Mutant(name, _WRITER, old, new, ("tests/unit/data/test_output_writer.py",))


MUTANTS += [
    _output("seal what somebody is writing", " and not is_open_for_writing(self._folder, file)", ""),
    _output("seal what still changes", "before.version == file.version and ", ""),
    _output("drop what is being replaced", "if is_waiting or len(unchanged)", "if len(unchanged)"),
    _output("name the index before it is there", "store.put(index_id.hex(), index)\n", "pass\n"),
    _output(
        "remove what the head still names",
        "self._change(groups=groups",
        "store.delete(HEAD_NAME), self._change(groups=groups",
    ),
    _output("forget what was begun", "for name in before.unneeded:", "for name in ():"),
    _output("leave what is not needed", "for name in unneeded:", "for name in ():"),
    _mutant(
        "take a head of another id",
        "formats/head.py",
        "dataset_id=dataset_id, object_id=HEAD_ID)",
        "dataset_id=dataset_id, object_id=bytes(data[32:48]))",
    ),
    _mutant("take a pin of another length", "formats/head.py", "if len(plain) != _PIN_BYTES:", "if False:"),
]
