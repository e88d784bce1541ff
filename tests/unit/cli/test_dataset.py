import json
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace
from typer.testing import CliRunner

from lethe.cli import dataset_seal, dataset_target, key
from lethe.crypto.hpke import PrivateKey, PublicKey
from lethe.data.output_writer import OutputsWriter
from lethe.formats.keyring import KEYRING_NAME, parse_keyring
from lethe.model.agentconfig import OutputRecipient, OutputsConfig
from lethe.model.errors import (
    CredentialsError,
    InputError,
    IntegrityError,
    LetheError,
    ObjectMissingError,
    UnwrapError,
    UsageError,
)
from lethe.model.names import JobUid, outputs_dataset
from lethe.model.phases import JobPhase
from lethe.model.resources import (
    JobSpec,
    JobStatus,
    Metadata,
    Outputs,
    SealedOutputs,
    SecretRef,
    SecureTrainingJob,
    Storage,
)
from tests.common.dataset_command import FILES, run, seal
from tests.common.datasets import read_tree, seal_files


def test_seal_prints_the_manifest_to_apply(home: Path) -> None:
    result = seal(home, "--secret-ref", "s3-read", "--region", "r1")
    body = yaml.safe_load(result.stdout)
    assert (body["apiVersion"], body["kind"]) == ("lethe.dev/v1alpha1", "EncryptedDataset")
    assert body["metadata"] == {"name": "digits", "namespace": "acme"}
    spec = body["spec"]
    assert spec["storage"] == {"url": f"file://{home}/sealed", "region": "r1", "secretRef": {"name": "s3-read"}}
    assert (spec["scheme"], spec["criticality"]) == ("provider", "sensitive")
    assert (home / "sealed" / spec["index"]["object"]).is_file()
    assert "sealed 3 files, 6 bytes" in result.stderr


def test_stanzas_are_bound_to_the_manifests_names(home: Path, manifest: Path) -> None:
    keyring = parse_keyring((home / "sealed" / KEYRING_NAME).read_bytes())
    assert keyring.dataset_id == yaml.safe_load(manifest.read_text())["spec"]["datasetId"]
    assert [(stanza.tenant, stanza.namespace, stanza.key, stanza.version, stanza.criticality)
            for stanza in keyring.stanzas] == [
        ("acme", "acme", "default", 4, "sensitive"), ("acme", "acme", "", 0, "sensitive"),
    ]  # fmt: skip


@pytest.mark.parametrize("identity", ["recovery.key", "service.key"])
def test_unseal_gives_the_files_back(home: Path, manifest: Path, identity: str) -> None:
    result = run("unseal", home / "back", "--manifest", manifest, "--identity", home / identity)
    assert "unsealed 3 files, 6 bytes" in result.stdout
    assert read_tree(home / "back") == FILES


def test_ls_and_verify(home: Path, manifest: Path) -> None:
    listed = run("ls", "-f", manifest, "-i", home / "recovery.key").stdout.splitlines()
    assert [line.split()[1:] for line in listed] == [["0", "readme"], ["3", "train/1.png"], ["3", "train/2.png"]]
    assert "is whole and authentic" in run("verify", "-f", manifest, "-i", home / "recovery.key").stdout


def test_pins_on_the_command_line_do_too(home: Path, manifest: Path) -> None:
    spec = yaml.safe_load(manifest.read_text())["spec"]
    pins = ["--url", spec["storage"]["url"], "--dataset-id", spec["datasetId"], "--index", spec["index"]["object"]]
    identity = ["--identity", home / "recovery.key"]
    assert run("ls", *pins, "--sha256", spec["index"]["sha256"], *identity).stdout.count("\n") == 3
    with pytest.raises(UsageError, match="--sha256 too"):
        run("ls", *pins, *identity)
    with pytest.raises(IntegrityError, match="pinned is"):
        run("ls", *pins, "--sha256", "0" * 64, *identity)
    with pytest.raises(InputError, match="64 lower-case hex digits"):
        run("ls", *pins, "--sha256", "00", *identity)


def test_an_older_manifest_is_an_error(home: Path, manifest: Path) -> None:
    old = manifest.read_text()
    other = seal(home, url=f"file://{home}/other").stdout
    (home / "mixed.yaml").write_text(other.replace(f"{home}/other", f"{home}/sealed"))
    with pytest.raises(IntegrityError, match="expected"):
        run("verify", "-f", home / "mixed.yaml", "-i", home / "recovery.key")
    assert manifest.read_text() == old


def test_a_stranger_opens_nothing(home: Path, manifest: Path) -> None:
    CliRunner().invoke(key.app, ["generate", "--out", f"{home}/stranger.key", "--suite", "X25519"])
    with pytest.raises(UnwrapError, match="sealed to other keys"):
        run("unseal", home / "back", "-f", manifest, "-i", home / "stranger.key")
    assert not (home / "back").exists()


def test_a_manifest_is_never_overwritten_and_nothing_is_sealed_then(home: Path) -> None:
    (home / "digits.yaml").write_text("the only pin")
    with pytest.raises(UsageError, match="only pin of another dataset"):
        seal(home, "-o", home / "digits.yaml")
    assert not (home / "sealed").exists()


def test_the_key_comes_from_the_cluster_when_no_file_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = PrivateKey.generate("X25519").public_key()

    def fetch(namespace: str, name: str) -> tuple[PublicKey, int]:
        assert (namespace, name) == ("acme", "second")
        return public, 7

    monkeypatch.setattr(dataset_seal, "fetch_tenant_key", fetch)
    seal(home, "--recipient", "acme/second")
    stanzas = parse_keyring((home / "sealed" / KEYRING_NAME).read_bytes()).stanzas_for(namespace="acme")
    assert [(stanza.key, stanza.version) for stanza in stanzas] == [("default", 4), ("second", 7)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--criticality", "odd"], UsageError, "'odd' is unknown, expected one of standard"),
        (["--name", "No"], UsageError, "--name 'No' is not a Kubernetes name"),
        (["--namespace", "a.b"], UsageError, "--namespace 'a.b'"),
        (["--tenant", "-"], UsageError, "--tenant '-'"),
        (["--recipient", "default"], UsageError, "is not NAMESPACE/NAME"),
        (["--recipient", "globex/default"], UsageError, "is not in namespace acme"),
        (["--recipient", "acme/default@2"], UsageError, "needs =FILE"),
        (["--recipient", "acme/other=/nothing"], InputError, "/nothing cannot be read"),
        (["--recovery-key", "/nothing"], InputError, "/nothing cannot be read"),
        (["--ca-file", "/nothing"], InputError, "CA file /nothing cannot be read"),
        (["--credentials-dir", "/nothing"], CredentialsError, "folder /nothing has no AWS_ACCESS_KEY_ID"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments_are_named(home: Path, arguments: list[str], error: type[LetheError], message: str) -> None:
    url = "s3://acme/x" if "--credentials-dir" in arguments else ""
    with pytest.raises(error, match=message):
        seal(home, *arguments, url=url)
    assert not (home / "sealed").exists()


def test_half_of_the_credentials_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    with pytest.raises(CredentialsError, match="no AWS_SECRET_ACCESS_KEY"):
        seal(home, url="s3://acme/x")


def test_a_google_key_of_the_environment_is_a_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{home}/nothing.json")
    with pytest.raises(InputError, match=r"GOOGLE_APPLICATION_CREDENTIALS is .*/nothing\.json, which cannot be read"):
        seal(home, url="gs://acme/x")
    (home / "key.json").write_text('{"type": "service_account"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{home}/key.json")
    found = dataset_target.find_credentials(None, "gs://acme/x")
    assert found == {"GOOGLE_APPLICATION_CREDENTIALS": '{"type": "service_account"}'}
    assert dataset_target.find_credentials(None, "s3://acme/x") is None


@pytest.mark.parametrize(
    "text", ["", "kind: Pod", "kind: EncryptedDataset", "a: [", "kind: EncryptedDataset\n---\nkind: EncryptedDataset"]
)
def test_other_manifests_are_refused(home: Path, text: str) -> None:
    (home / "m.yaml").write_text(text)
    with pytest.raises(InputError, match=r"m\.yaml"):
        run("ls", "-f", home / "m.yaml", "-i", home / "recovery.key")


def test_which_dataset_must_be_said_once(home: Path, manifest: Path) -> None:
    for arguments in ([], ["-f", manifest, "--job", "acme/digits"]):
        with pytest.raises(UsageError, match="exactly one of"):
            run("ls", "-i", home / "recovery.key", *arguments)


def job_with(outputs: SealedOutputs | None, url: str) -> SecureTrainingJob:
    return SecureTrainingJob(
        metadata=Metadata(name="digits", namespace="acme"),
        spec=JobSpec(template={}, outputs=Outputs(storage=Storage(url=url), recipients=[])),
        status=JobStatus(phase=JobPhase.SUCCEEDED, outputs=outputs),
    )


def test_a_jobs_outputs_are_found_by_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal_files(tmp_path, {"model": b"weights"})
    models = tmp_path / "models"
    models.mkdir()
    sealed.root.rename(models / sealed.sealed.dataset_id)
    (tmp_path / "recovery.key").write_text(sealed.identity.encode())
    (tmp_path / "recovery.key").chmod(0o600)
    url = f"file://{models}"
    outputs = SealedOutputs(
        url=f"{url}/{sealed.sealed.dataset_id}",
        dataset_id=sealed.sealed.dataset_id,
        index=sealed.sealed.index,
        criticality="standard",
    )

    async def read(namespace: str, name: str) -> SecureTrainingJob:
        assert (namespace, name) == ("acme", "digits")
        return job_with(outputs, url)

    monkeypatch.setattr(dataset_target, "_read_job", read)
    run("unseal", tmp_path / "back", "--job", "acme/digits", "--identity", tmp_path / "recovery.key")
    assert read_tree(tmp_path / "back") == {"model": b"weights"}


def test_a_job_without_outputs_says_its_phase(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job_with(None, "file:///x")
    found: SecureTrainingJob | None = replace(made, status=JobStatus(phase=JobPhase.QUEUED))

    async def read(namespace: str, name: str) -> SecureTrainingJob | None:
        return found

    monkeypatch.setattr(dataset_target, "_read_job", read)
    with pytest.raises(UsageError, match="has not begun: its phase is Queued"):
        run("ls", "--job", "acme/digits", "-i", home / "recovery.key")
    found = None
    with pytest.raises(UsageError, match="there is no job acme/digits"):
        run("ls", "--job", "acme/digits", "-i", home / "recovery.key")
    with pytest.raises(UsageError, match="is not NAMESPACE/NAME"):
        run("ls", "--job", "digits", "-i", home / "recovery.key")


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OutputsWriter:
    """Return the writer of a job that runs: its status names no outputs yet."""
    identity = PrivateKey.generate("X25519")
    (tmp_path / "recovery.key").write_text(identity.encode())
    (tmp_path / "recovery.key").chmod(0o600)
    storage = Storage(url=f"file://{tmp_path}/models", secret_ref=SecretRef(name="s3-write"))
    made = job_with(None, storage.url)
    outputs = Outputs(storage=storage, recipients=[])
    job = replace(
        made,
        metadata=replace(made.metadata, uid="job-1"),
        spec=replace(made.spec, outputs=outputs),
        status=JobStatus(phase=JobPhase.RUNNING, attempt=2),
    )

    async def read(namespace: str, name: str) -> SecureTrainingJob:
        return job

    monkeypatch.setattr(dataset_target, "_read_job", read)
    config = OutputsConfig(
        tenant="acme",
        namespace="acme",
        dataset_id=outputs_dataset(JobUid("job-1"), 2),
        storage=storage,
        recipients=[OutputRecipient(public_key=identity.public_key().encode())],
        criticality="sensitive",
    )
    (tmp_path / "outputs").mkdir()
    return OutputsWriter(tmp_path / "outputs", config, None)


def test_outputs_of_a_job_that_runs_are_those_of_its_newest_snapshot(tmp_path: Path, running: OutputsWriter) -> None:
    options = ("--job", "acme/digits", "--identity", tmp_path / "recovery.key")
    with pytest.raises(ObjectMissingError, match="keyring"):
        run("ls", *options)
    for step in ("step-1", "step-2"):
        (tmp_path / "outputs" / step).write_bytes(step.encode())
        running.finish()
    result = run("cat", "step-2", *options)
    assert result.stdout == "step-2"
    assert "not pinned: this is the newest snapshot" in result.stderr
    unpinned = json.loads(run("info", *options[:2], "-o", "json").stdout)
    assert unpinned["index"] is None and "bytes" not in unpinned
    with pytest.raises(UsageError, match="needs a dataset that is pinned"):
        run("prune", *options)


def test_a_manifest_of_outputs_pins_them_for_the_next_job(tmp_path: Path, running: OutputsWriter) -> None:
    (tmp_path / "outputs" / "step-1").write_bytes(b"one")
    message = running.finish().message
    path = tmp_path / "resume.yaml"
    run("manifest", "--job", "acme/digits", "-i", tmp_path / "recovery.key", "--name", "resume", "-o", path)
    made = yaml.safe_load(path.read_text())
    assert made["metadata"] == {"name": "resume", "namespace": "acme"}
    assert made["spec"] == {
        "storage": {"url": message.url, "secretRef": {"name": "s3-write"}},
        "datasetId": message.dataset_id,
        "index": {"object": message.index.object, "sha256": message.index.sha256},
        "scheme": "provider",
        "criticality": "sensitive",
    }
    (tmp_path / "outputs" / "step-1").write_bytes(b"later")
    running.finish()
    with pytest.raises(ObjectMissingError, match=message.index.object):
        run("ls", "-f", path, "-i", tmp_path / "recovery.key")
    with pytest.raises(UsageError, match="exists; it may hold"):
        run("manifest", "--job", "acme/digits", "-i", tmp_path / "recovery.key", "--name", "resume", "-o", path)
    with pytest.raises(UsageError, match="--name 'No' is not a Kubernetes name"):
        run("manifest", "--job", "acme/digits", "-i", tmp_path / "recovery.key", "--name", "No")
