"""Fetches the keys of a job's datasets, in the pod's first init container.

1. Every dataset's keyring is read from storage before any key is asked for.
2. For each dataset: an ephemeral key pair, a challenge, a release. The answer opens only with the ephemeral key and the
   transcript of this exchange.
3. Every key is checked against the keyring's MAC before it is used; what does not match is never written.
4. `stream`: keys and source go into the memory volume. `unpack`: the files do, and the keys stay in this process.
5. The release is confirmed last. A confirmation that does not get through is logged and stops nothing: the audit then
   says *intent* without *confirmed*.

A side that is away is waited for, within one budget (`lethe.agents.patience`). Everything else ends at once, with an
exit status of its own and one sentence in the termination message:

| status | meaning |
|---|---|
| 0 | all keys are in place |
| 2 | the configuration, token or image is wrong |
| 10 | the key service refuses; the sentence names the check |
| 11 | the key service was away for too long |
| 12 | the storage was away for too long |
| 13 | the storage refuses the credentials |
| 14 | the dataset is missing, damaged, not the pinned one, or not sealed for this namespace |
| 15 | the pod's memory volume cannot take it |
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Protocol

from lethe.adapters.objectstore import open_store
from lethe.agents.keyfiles import write_dataset
from lethe.agents.patience import GaveUpError, Patience, Side
from lethe.crypto.hpke import PrivateKey
from lethe.data.unpack import unpack
from lethe.formats.keyring import KEYRING_NAME, MAX_KEYRING, Keyring, Stanza, parse_keyring, verify_keyring
from lethe.formats.protocol import (
    ChallengeReply,
    ChallengeRequest,
    ConfirmRequest,
    ReleaseReply,
    ReleaseRequest,
    SealedStanza,
)
from lethe.formats.quantity import parse_quantity
from lethe.formats.transcript import Transcript, confirmation, encode_shares, parse_shares
from lethe.model.agentconfig import KeyfetchConfig, KeyfetchDataset
from lethe.model.dataset import DatasetSource
from lethe.model.errors import (
    CredentialsError,
    InputError,
    KeyringError,
    LetheError,
    ProtocolError,
    ReleaseRefused,
    UnavailableError,
    UsageError,
)
from lethe.model.names import CREDENTIALS_PATH, DATASETS_PATH, KEYSERVICE_ID, TERMINATION_LOG, TOKEN_PATH

CONFIRM_ATTEMPTS: Final = 3
_MAX_SENTENCE: Final = 1024

_log = logging.getLogger(__name__)


class ExitStatus(IntEnum):
    """See the module's table."""

    DONE = 0
    CONFIGURATION = 2
    REFUSED = 10
    SERVICE_AWAY = 11
    STORAGE_AWAY = 12
    CREDENTIALS = 13
    DATASET = 14
    NO_ROOM = 15


class NoRoomError(LetheError):
    """What is to be written is larger than its volume."""


class Service(Protocol):
    """The key service; `lethe.adapters.keyservice.KeyserviceClient`."""

    def challenge(self, request: ChallengeRequest) -> ChallengeReply: ...

    def release(self, request: ReleaseRequest) -> ReleaseReply: ...

    def confirm(self, request: ConfirmRequest) -> None: ...


@dataclass(frozen=True)
class Places:
    """Where things lie in the pod."""

    datasets: Path = Path(DATASETS_PATH)
    credentials: Path = Path(CREDENTIALS_PATH)
    token: Path = Path(TOKEN_PATH)
    termination_log: Path = Path(TERMINATION_LOG)


@dataclass(frozen=True, repr=False)
class Released:
    """The keys of one dataset, checked, and the proof that they were opened."""

    deks: dict[int, bytes]
    confirmation: ConfirmRequest


class Keyfetch:
    """One run of the container."""

    def __init__(
        self,
        config: KeyfetchConfig,
        service: Service,
        places: Places,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._config = config
        self._service = service
        self._places = places
        self._patience = Patience(config.wait_seconds, clock, sleep, self._tell)

    def run(self) -> ExitStatus:
        """Fetch everything; return the exit status, with its sentence in the termination message."""
        try:
            keyrings = [(dataset, self._read_keyring(dataset)) for dataset in self._config.datasets]
            for dataset, keyring in keyrings:
                self._fetch(dataset, keyring)
        except (LetheError, OSError) as error:
            self._tell(_sentence(error))
            return status_of(error)
        self._places.termination_log.write_text("", encoding="utf-8")
        return ExitStatus.DONE

    def _read_keyring(self, dataset: KeyfetchDataset) -> Keyring:
        name, spec = dataset.use.name, dataset.dataset.spec

        def read() -> bytes:
            return open_store(spec.storage, self._credentials(dataset)).get(KEYRING_NAME, limit=MAX_KEYRING)

        keyring = parse_keyring(self._patience.keep_trying(Side.STORAGE, read))
        if keyring.dataset_id != spec.dataset_id:
            raise KeyringError(
                f"the keyring at {spec.storage.url} is of dataset {keyring.dataset_id}, EncryptedDataset {name} says "
                f"{spec.dataset_id}: correct storage.url or datasetId"
            )
        return keyring

    def _fetch(self, dataset: KeyfetchDataset, keyring: Keyring) -> None:
        name, use = dataset.use.name, dataset.use
        stanzas = choose_stanzas(keyring, dataset, self._config.namespace)
        released = self._patience.keep_trying(Side.KEY_SERVICE, lambda: self._release(dataset, keyring, stanzas))
        source = DatasetSource(
            name=name,
            dataset_id=dataset.dataset.spec.dataset_id,
            index=dataset.dataset.spec.index,
            storage=dataset.dataset.spec.storage,
            credentials=self._credentials(dataset) or "",
        )
        if use.mode == "unpack":
            if use.path is None or use.unpack_size is None:
                raise UsageError(f"dataset {name} is to be unpacked, but its path or unpackSize is missing")
            target, limit = Path(use.path), parse_quantity(use.unpack_size)
            try:
                done = self._patience.keep_trying(
                    Side.STORAGE, lambda: unpack(source, released.deks, target, size_limit=limit)
                )
            except InputError as error:
                raise NoRoomError(f"dataset {name} cannot be unpacked to {target}: {error}") from error
            _log.info("dataset %s: %d files, %d bytes in %s", name, done.files, done.bytes, target)
        else:
            write_dataset(self._places.datasets, source, released.deks)
            _log.info("dataset %s: keys of %d epochs in place", name, len(released.deks))
        self._confirm(name, released.confirmation)

    def _release(self, dataset: KeyfetchDataset, keyring: Keyring, stanzas: list[Stanza]) -> Released:
        """Run the protocol once, with a key pair and a nonce of its own."""
        config, dataset_id = self._config, dataset.dataset.spec.dataset_id
        private = PrivateKey.generate()
        public_key = private.public_key().encode()
        token = self._read_token()
        challenge = self._service.challenge(
            ChallengeRequest(
                namespace=config.namespace,
                job=config.job,
                job_uid=config.job_uid,
                public_key=public_key,
                token=token,
            )
        )
        reply = self._service.release(
            ReleaseRequest(
                namespace=config.namespace,
                job=config.job,
                job_uid=config.job_uid,
                public_key=public_key,
                token=token,
                nonce=challenge.nonce,
                dataset=dataset.use.name,
                dataset_id=dataset_id,
                key=stanzas[0].key,
                stanzas=[SealedStanza(epoch=item.epoch, version=item.version, sealed=item.sealed) for item in stanzas],
            )
        )
        digest = Transcript(
            releaser=KEYSERVICE_ID,
            namespace=config.namespace,
            job=config.job,
            job_uid=config.job_uid,
            pod_uid=reply.pod_uid,
            node_uid=reply.node_uid,
            node_epoch=reply.node_epoch,
            dataset_id=dataset_id,
            key=stanzas[0].key,
            versions=tuple((item.epoch, item.version) for item in stanzas),
            nonce=challenge.nonce,
            public_key=public_key,
        ).digest()
        deks = parse_shares(private.open(reply.sealed, digest), tuple(item.epoch for item in stanzas))
        for epoch, dek in deks.items():
            verify_keyring(keyring, epoch, dek)
        mac = confirmation(encode_shares(deks), digest)
        return Released(deks=deks, confirmation=ConfirmRequest(release_id=reply.release_id, mac=mac))

    def _read_token(self) -> str:
        """Return the newest token; the kubelet renews it, so it is read for each exchange."""
        try:
            return self._places.token.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageError(f"the pod's token {self._places.token} cannot be read: {error.strerror}") from error

    def _confirm(self, name: str, request: ConfirmRequest) -> None:
        for attempt in range(1, CONFIRM_ATTEMPTS + 1):
            try:
                return self._service.confirm(request)
            except (UnavailableError, ReleaseRefused, ProtocolError) as error:
                _log.warning("dataset %s: confirmation %d of %d failed: %s", name, attempt, CONFIRM_ATTEMPTS, error)
        return None

    def _credentials(self, dataset: KeyfetchDataset) -> str | None:
        """Return the folder of the Secret that the dataset's storage names."""
        if dataset.dataset.spec.storage.secret_ref is None:
            return None
        return str(self._places.credentials / dataset.use.name)

    def _tell(self, sentence: str) -> None:
        """Say it in the log and in the termination message, which a pod that is killed while waiting leaves behind."""
        _log.warning("%s", sentence)
        self._places.termination_log.write_text(sentence, encoding="utf-8")


def choose_stanzas(keyring: Keyring, dataset: KeyfetchDataset, namespace: str) -> list[Stanza]:
    """Return one stanza for each epoch, by rising epoch, all for one TenantKey of this namespace.

    Raise KeyringError when there is no such TenantKey; of several the first by name is taken, in its newest version.
    """
    spec = dataset.dataset.spec
    usable = [
        stanza
        for stanza in keyring.stanzas_for(namespace=namespace)
        if (stanza.criticality, stanza.scheme) == (spec.criticality, spec.scheme)
    ]
    for key in sorted({stanza.key for stanza in usable}):
        newest: dict[int, Stanza] = {}
        for stanza in sorted(usable, key=lambda item: item.version):
            if stanza.key == key:
                newest[stanza.epoch] = stanza
        if sorted(newest) == keyring.epochs():
            return [newest[epoch] for epoch in sorted(newest)]
    sealed_for = sorted(
        f"{item.namespace}/{item.key} as {item.criticality}, scheme {item.scheme}"
        for item in keyring.stanzas
        if item.key
    )
    raise KeyringError(
        f"the keyring of dataset {dataset.use.name} has no keys for a TenantKey of namespace {namespace} as "
        f"{spec.criticality}, scheme {spec.scheme}; it is sealed for {'; '.join(sealed_for) or 'offline keys only'}: "
        "seal the dataset again with --recipient, or correct criticality and scheme of the EncryptedDataset"
    )


def status_of(error: LetheError | OSError) -> ExitStatus:
    """Return the exit status that an error ends with."""
    match error:
        case ReleaseRefused():
            return ExitStatus.REFUSED
        case GaveUpError():
            return ExitStatus.SERVICE_AWAY if error.side is Side.KEY_SERVICE else ExitStatus.STORAGE_AWAY
        case CredentialsError():
            return ExitStatus.CREDENTIALS
        case InputError() | ProtocolError():
            return ExitStatus.CONFIGURATION
        case NoRoomError() | OSError():
            return ExitStatus.NO_ROOM
        case _:
            return ExitStatus.DATASET


def _sentence(error: LetheError | OSError) -> str:
    """Return one line for the termination message."""
    text = f"the key service refuses ({error.check}): {error}" if isinstance(error, ReleaseRefused) else str(error)
    return " ".join(text.split())[:_MAX_SENTENCE]
