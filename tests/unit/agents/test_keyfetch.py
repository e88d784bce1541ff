import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lethe.agents.keyfetch import ExitStatus, Keyfetch, Places
from lethe.crypto.derive import random_bytes
from lethe.crypto.hpke import PrivateKey
from lethe.data.seal import KeyPolicy, seal_folder
from lethe.formats.audit import parse_record
from lethe.formats.keyring import KEYRING_NAME
from lethe.formats.protocol import ChallengeReply, ChallengeRequest, ConfirmRequest, ReleaseReply, ReleaseRequest
from lethe.model.agentconfig import KeyfetchConfig, KeyfetchDataset, OutputRecipient
from lethe.model.dataset import DatasetSource
from lethe.model.errors import CredentialsError, ReleaseRefused, StorageError, UnavailableError
from lethe.model.resources import DatasetSpec, DatasetUse, EncryptedDataset, IndexPin, Metadata, SecretRef, Storage
from tests.common.certificates import Authority
from tests.common.keyservice import Running, build_binding, run_keyservice, write_keyring
from tests.common.release import DATASET_ID, JOB_UID, NAMESPACE, TOKEN, Cluster, FakeKube


class Pod:
    """The inside of a pod: its folders, its configuration, a clock that sleeping moves."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.storage = folder / "storage"
        self.places = Places(
            datasets=folder / "run" / "datasets",
            credentials=folder / "credentials",
            token=folder / "token",
            termination_log=folder / "termination-log",
        )
        self.places.datasets.parent.mkdir()
        self.places.token.write_text(TOKEN + "\n")
        self.time = 0.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.use = DatasetUse(name="digits")
        self.spec = DatasetSpec(
            storage=Storage(url=f"file://{self.storage}"),
            dataset_id=DATASET_ID,
            index=IndexPin(object="6f" * 16, sha256="9a" * 32),
            criticality="sensitive",
        )
        self.service: Any = running.client()

    def config(self, **changes: Any) -> KeyfetchConfig:
        dataset = EncryptedDataset(metadata=Metadata(name="digits", namespace=NAMESPACE), spec=self.spec)
        config = KeyfetchConfig(
            namespace=NAMESPACE,
            job="digits",
            job_uid=JOB_UID,
            service_url=self.running.url,
            ca_bundle=self.running.authority.pem,
            wait_seconds=60,
            datasets=[KeyfetchDataset(use=self.use, dataset=dataset)],
        )
        return msgspec.structs.replace(config, **changes)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        self.on_sleep()

    async def run(self, **changes: Any) -> ExitStatus:
        keyfetch = Keyfetch(self.config(**changes), self.service, self.places, lambda: self.time, self.sleep)
        return await asyncio.to_thread(keyfetch.run)

    @property
    def sentence(self) -> str:
        return self.places.termination_log.read_text()

    def events(self) -> list[str]:
        return [parse_record(data).event.event for data in self.running.audit()]


class Faulty:
    """A service whose answers one can change."""

    def __init__(self, service: Any, **calls: Callable[..., Any]) -> None:
        self._service = service
        self._calls = calls

    def challenge(self, request: ChallengeRequest) -> ChallengeReply:
        return self._calls.get("challenge", self._service.challenge)(request)

    def release(self, request: ReleaseRequest) -> ReleaseReply:
        return self._calls.get("release", self._service.release)(request)

    def confirm(self, request: ConfirmRequest) -> None:
        return self._calls.get("confirm", self._service.confirm)(request)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def pod(tmp_path: Path, authority: Authority) -> AsyncIterator[Pod]:
    async with run_keyservice(tmp_path / "service", FakeKube(Cluster()), authority) as running:
        yield Pod(running, tmp_path)


@pytest.fixture
def dek(pod: Pod) -> bytes:
    dek = random_bytes(32)
    write_keyring(pod.storage, pod.running.kube, dek, build_binding())
    return dek


async def test_keys_and_source_are_left_for_the_reader(pod: Pod, dek: bytes) -> None:
    assert await pod.run() == ExitStatus.DONE
    folder = pod.places.datasets / "digits"
    assert sorted(file.name for file in folder.iterdir()) == ["dek.1", "source.json"]
    assert (folder / "dek.1").read_bytes() == dek
    assert msgspec.json.decode((folder / "source.json").read_bytes(), type=DatasetSource) == DatasetSource(
        name="digits", dataset_id=DATASET_ID, index=pod.spec.index, storage=pod.spec.storage
    )
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o440}
    assert pod.sentence == ""
    assert pod.events() == ["key-created", "intent", "confirmed"]


async def test_a_rerun_replaces_what_was_left(pod: Pod, dek: bytes) -> None:
    assert await pod.run() == ExitStatus.DONE
    assert await pod.run() == ExitStatus.DONE
    assert (pod.places.datasets / "digits" / "dek.1").read_bytes() == dek
    assert pod.events().count("rerun") == 1


async def test_files_get_the_group_of_their_volume(pod: Pod, dek: bytes) -> None:
    volume = pod.places.datasets.parent
    volume.chmod(0o2770)
    assert await pod.run() == ExitStatus.DONE
    for path in (pod.places.datasets, pod.places.datasets / "digits"):
        assert path.stat().st_mode & stat.S_ISGID
        assert path.stat().st_gid == volume.stat().st_gid


async def test_a_secret_is_named_to_the_reader(pod: Pod, dek: bytes) -> None:
    pod.spec = msgspec.structs.replace(
        pod.spec, storage=msgspec.structs.replace(pod.spec.storage, secret_ref=SecretRef(name="s3"))
    )
    assert await pod.run() == ExitStatus.DONE
    source = msgspec.json.decode((pod.places.datasets / "digits" / "source.json").read_bytes(), type=DatasetSource)
    assert source.credentials == str(pod.places.credentials / "digits")


async def test_a_refusal_ends_at_once_with_its_check(pod: Pod, dek: bytes) -> None:
    pod.running.kube.cluster.gpu_node["status"]["phase"] = "Draining"  # type: ignore[index]
    assert await pod.run() == ExitStatus.REFUSED
    assert pod.sentence.startswith("the key service refuses (ledger-assigned): node gpu-1 is Draining")
    assert pod.slept == []
    assert not pod.places.datasets.exists()


async def test_not_yet_reported_is_waited_for(pod: Pod, dek: bytes) -> None:
    status = pod.running.kube.cluster.pod["status"]["initContainerStatuses"][0]  # type: ignore[index]
    status["state"] = {"waiting": {}}
    pod.on_sleep = lambda: status.update(state={"running": {}}) if len(pod.slept) == 2 else None
    assert await pod.run() == ExitStatus.DONE
    assert pod.slept == [0.5, 1.0]


async def test_not_yet_reported_for_ever_is_a_refusal(pod: Pod, dek: bytes) -> None:
    pod.running.kube.cluster.job["status"]["phase"] = "Queued"  # type: ignore[index]
    pod.on_sleep = lambda: pod.running.clock.move(60)
    assert await pod.run() == ExitStatus.REFUSED
    assert "job-admitted" in pod.sentence
    assert sum(pod.slept) == pytest.approx(60)


async def test_a_service_that_is_away_is_waited_for(pod: Pod, dek: bytes) -> None:
    pod.running.kube.error = UnavailableError("connection refused")

    def come_back() -> None:
        assert pod.sentence.startswith("waiting for the key service, 60 s at most: ")
        if len(pod.slept) == 3:
            pod.running.kube.error = None

    pod.on_sleep = come_back
    assert await pod.run() == ExitStatus.DONE
    assert len(pod.slept) == 3


async def test_a_service_that_stays_away_ends_the_waiting(pod: Pod, dek: bytes) -> None:
    def away(_request: ChallengeRequest) -> ChallengeReply:
        raise UnavailableError("the key service does not answer")

    pod.service = Faulty(pod.service, challenge=away)
    assert await pod.run() == ExitStatus.SERVICE_AWAY
    assert pod.sentence == "gave up after waiting 60 s for the key service: the key service does not answer"
    assert max(pod.slept) == 15.0
    assert sum(pod.slept) == pytest.approx(60)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CredentialsError("the storage refuses AWS_ACCESS_KEY_ID"), ExitStatus.CREDENTIALS),
        (UnavailableError("the storage does not answer"), ExitStatus.STORAGE_AWAY),
        (StorageError("the storage says no"), ExitStatus.DATASET),
    ],
)
async def test_storage_fails(
    pod: Pod, dek: bytes, error: Exception, status: ExitStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any) -> Any:
        raise error

    monkeypatch.setattr("lethe.agents.keyfetch.open_store", fail)
    assert await pod.run() == status
    assert str(error) in pod.sentence
    assert pod.events() == ["key-created"]  # no key was asked for


async def test_a_missing_keyring_is_a_broken_dataset(pod: Pod) -> None:
    assert await pod.run() == ExitStatus.DATASET
    assert KEYRING_NAME in pod.sentence


async def test_a_keyring_of_another_dataset_is_named(pod: Pod) -> None:
    write_keyring(pod.storage, pod.running.kube, bytes(32), build_binding(dataset_id="ff" * 16))
    assert await pod.run() == ExitStatus.DATASET
    assert "ff" * 16 in pod.sentence and DATASET_ID in pod.sentence


@pytest.mark.parametrize("binding", [{"namespace": "globex"}, {"criticality": "critical"}], ids=str)
async def test_a_keyring_without_a_stanza_for_us_says_whose_it_is(pod: Pod, binding: dict[str, str]) -> None:
    write_keyring(pod.storage, pod.running.kube, bytes(32), build_binding(**binding))
    assert await pod.run() == ExitStatus.DATASET
    assert "seal the dataset again" in pod.sentence and next(iter(binding.values())) in pod.sentence
    assert pod.events() == ["key-created"]


async def test_a_changed_keyring_is_refused_before_anything_is_written(pod: Pod, dek: bytes) -> None:
    file = pod.storage / KEYRING_NAME
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # the MAC, which only the key can check
    file.write_bytes(data)
    assert await pod.run() == ExitStatus.DATASET
    assert not pod.places.datasets.exists()
    assert pod.events() == ["key-created", "intent"]


async def test_shares_for_another_pod_do_not_open(pod: Pod, dek: bytes) -> None:
    real = pod.service

    def release(request: ReleaseRequest) -> ReleaseReply:
        return msgspec.structs.replace(real.release(request), pod_uid="other")

    pod.service = Faulty(real, release=release)
    assert await pod.run() == ExitStatus.DATASET
    assert "does not open" in pod.sentence
    assert not pod.places.datasets.exists()


async def test_a_lost_confirmation_stops_nothing(pod: Pod, dek: bytes) -> None:
    def lose(_request: ConfirmRequest) -> None:
        raise UnavailableError("the connection broke")

    pod.service = Faulty(pod.service, confirm=lose)
    assert await pod.run() == ExitStatus.DONE
    assert pod.events() == ["key-created", "intent"]


async def test_a_missing_token_is_a_wrong_configuration(pod: Pod, dek: bytes) -> None:
    pod.places.token.unlink()
    assert await pod.run() == ExitStatus.CONFIGURATION
    assert str(pod.places.token) in pod.sentence


async def test_a_renewed_token_is_read_again(pod: Pod, dek: bytes) -> None:
    seen: list[str] = []
    real = pod.service

    def challenge(request: ChallengeRequest) -> ChallengeReply:
        seen.append(request.token)
        if len(seen) == 1:
            pod.places.token.write_text("renewed")
            raise ReleaseRefused("keyfetch-running", "not yet", retryable=True)
        pod.places.token.write_text(TOKEN)
        return real.challenge(msgspec.structs.replace(request, token=TOKEN))

    def release(request: ReleaseRequest) -> ReleaseReply:
        return real.release(msgspec.structs.replace(request, token=TOKEN))

    pod.service = Faulty(real, challenge=challenge, release=release)
    assert await pod.run() == ExitStatus.DONE
    assert seen == [TOKEN, "renewed"]


async def test_a_volume_that_cannot_be_written_has_its_own_status(pod: Pod, dek: bytes) -> None:
    pod.places.datasets.write_text("a file where the folder must be")
    assert await pod.run() == ExitStatus.NO_ROOM
    assert pod.sentence


async def test_a_job_without_datasets_has_nothing_to_fetch(pod: Pod) -> None:
    assert await pod.run(datasets=[]) == ExitStatus.DONE
    assert pod.events() == ["key-created"]


def seal(pod: Pod, folder: Path, **use: Any) -> None:
    """Seal a real dataset to the published TenantKey, and make the job unpack it."""
    published = pod.running.kube.cluster.tenant_key["status"]  # type: ignore[index]
    policy = KeyPolicy(
        tenant="acme",
        namespace=NAMESPACE,
        recipients=(
            OutputRecipient(key="default", version=1, public_key=published["publicKey"]),
            OutputRecipient(public_key=PrivateKey.generate("X25519").public_key().encode()),
        ),
        criticality="sensitive",
    )
    ids = iter([bytes.fromhex(DATASET_ID)])
    sealed = seal_folder(
        folder, pod.spec.storage, None, policy, workers=1, random=lambda length: next(ids, None) or os.urandom(length)
    )
    pod.spec = msgspec.structs.replace(pod.spec, index=sealed.index)
    pod.use = DatasetUse(name="digits", mode="unpack", **use)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "one.png").write_bytes(b"one" * 1000)
    (folder / "two.png").write_bytes(b"two")
    return folder


async def test_a_dataset_is_unpacked_and_its_key_kept_back(pod: Pod, plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    await asyncio.to_thread(seal, pod, plain, path=str(target), unpack_size="1Mi")
    assert await pod.run() == ExitStatus.DONE, pod.sentence
    assert (target / "train" / "one.png").read_bytes() == b"one" * 1000
    assert not pod.places.datasets.exists()
    assert pod.events() == ["key-created", "intent", "confirmed"]


async def test_a_dataset_larger_than_its_volume_is_not_unpacked(pod: Pod, plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    await asyncio.to_thread(seal, pod, plain, path=str(target), unpack_size="4Ki")
    assert await pod.run() == ExitStatus.NO_ROOM
    assert "raise unpackSize" in pod.sentence
    assert not target.exists()


async def test_a_corrupted_object_leaves_no_plaintext(pod: Pod, plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    await asyncio.to_thread(seal, pod, plain, path=str(target), unpack_size="1Mi")
    names = {KEYRING_NAME, pod.spec.index.object}
    (data,) = [file for file in pod.storage.iterdir() if file.name not in names]
    content = bytearray(data.read_bytes())
    content[200] ^= 1
    data.write_bytes(content)
    assert await pod.run() == ExitStatus.DATASET
    assert data.name in pod.sentence
    assert not list(target.iterdir())
