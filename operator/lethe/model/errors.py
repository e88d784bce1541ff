"""Every error that Lethe raises on purpose, in one tree.

LetheError
├── InputError             something a person wrote is wrong: a field, a file, an argument
│   ├── ResourceError      an object of the API server is refused; carries a reason for a condition
│   └── UsageError         a command-line argument
├── FormatError            bytes that do not parse, or parse to something that is not allowed
│   ├── HeaderError        object header
│   ├── DatasetIndexError  index object
│   ├── KeyringError       keyring object
│   ├── ReceiptError       report, statement or envelope of a scrub
│   └── ProtocolError      a message of the release protocol
├── CryptoError            a key, tag or signature is not what it must be
│   ├── AuthenticationError  an AEAD tag is wrong: the bytes were changed, or the key is another one
│   ├── CommitmentError    the object was written with another key, or replaced by another version
│   ├── UnwrapError        no stanza of the keyring opens with this key
│   └── SignatureError     a signature does not verify
├── IntegrityError         what storage returned is not what the index or the pin promised
├── StorageError           object storage cannot be reached, or refuses
│   ├── ObjectMissingError
│   └── CredentialsError
├── ReleaseRefused         the key service says no; `check` names the first check that failed
├── UnavailableError       a service is away; the same request may succeed later
├── RefusedError           the API server refuses a request: no permission, a policy, or an invalid object
├── ConflictError          a write lost against somebody else's; read again and decide again
│   └── AlreadyExistsError   an object of that name is there already
├── LeadershipError        another replica may act now: this one writes nothing
└── GpuError               the driver, a GPU or a scrub step failed

A message says what was found, what was expected, and what to do.
"""


class LetheError(Exception):
    """Base of all errors raised on purpose."""


class InputError(LetheError):
    """Something that a person wrote is wrong."""


class UsageError(InputError):
    """A command-line argument is wrong."""


class ResourceError(InputError):
    """An object of the API server is refused.

    `reason` is a CamelCase constant of `lethe.model.reasons`, fit for a condition.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FormatError(LetheError):
    """Bytes do not parse, or parse to something that is not allowed."""


class HeaderError(FormatError):
    """An object's header is wrong."""


class DatasetIndexError(FormatError):
    """An index is wrong."""


class KeyringError(FormatError):
    """A keyring is wrong."""


class ReceiptError(FormatError):
    """A scrub report, statement or envelope is wrong."""


class ProtocolError(FormatError):
    """A message of the release protocol is wrong."""


class CryptoError(LetheError):
    """A key, tag or signature is not what it must be."""


class AuthenticationError(CryptoError):
    """An AEAD tag is wrong: the bytes were changed, or the key is another one."""


class CommitmentError(CryptoError):
    """An object's key commitment differs: another key, or another version of the object."""


class UnwrapError(CryptoError):
    """No stanza opens with the key at hand."""


class SignatureError(CryptoError):
    """A signature does not verify."""


class IntegrityError(LetheError):
    """Storage returned something other than the index or the pin promised."""


class StorageError(LetheError):
    """Object storage cannot be reached, or refuses."""


class ObjectMissingError(StorageError):
    """An object that must be there is not."""


class CredentialsError(StorageError):
    """Storage refuses the credentials."""


class ReleaseRefused(LetheError):
    """The key service refuses a release.

    `check` names the first check that failed; `retryable` says that the cluster may only not have caught up yet.
    """

    def __init__(self, check: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.check = check
        self.retryable = retryable


class UnavailableError(LetheError):
    """A service is away; the same request may succeed later."""


class ConflictError(LetheError):
    """A write lost against another one: read again and decide again."""


class AlreadyExistsError(ConflictError):
    """An object of that name is there already: make sure that it is the one that was meant."""


class LeadershipError(LetheError):
    """Another replica of the operator may act now: this one writes nothing."""


class RefusedError(LetheError):
    """The API server refuses a request, with its own message; the same request will be refused again."""


class GpuError(LetheError):
    """The driver, a GPU, or a step of a scrub failed.

    `reason` is a CamelCase constant of `lethe.model.reasons`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
