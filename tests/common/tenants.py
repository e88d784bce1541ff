"""A tenant as the end-to-end suite and the demo know it: namespace, bucket, credentials, keys, datasets, jobs."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lethe.adapters.objectstore import open_store
from lethe.model.ports import ObjectStore as ObjectStorePort
from lethe.model.resources import Storage
from tests.cluster.folders import PROJECT
from tests.cluster.s3 import REGION, Credentials, ObjectStore
from tests.common.installation import EXAMPLE_IMAGE, Installation
from tests.common.objects import Object, condition, wait_until

EXAMPLES = PROJECT / "examples" / "digits"
SECRET = "s3"
INSPECT = ("python3", "/app/inspect_memory.py", "--expect-zeros")


def train(dataset: str = "digits") -> tuple[str, ...]:
    """Return the example's training command."""
    return ("python3", "/app/train.py", "--dataset", dataset, "--require-accuracy", "0.9")


@dataclass(frozen=True)
class TrialTenant:
    """One tenant; its folder stands for the machine of the tenant's own people."""

    name: str
    installation: Installation
    store: ObjectStore
    folder: Path

    def set_up(self) -> None:
        """Make the namespace, Tenant, bucket, S3 Secret, TenantKey and the offline recovery key; again is no error."""
        self.folder.mkdir(parents=True, exist_ok=True)
        credentials = self.credentials
        self.store.bucket(self.name, owner=credentials)
        self.kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}}])
        self.kubectl.apply(
            [
                {**self._example("tenant.yaml"), "metadata": {"name": self.name}, "spec": {"namespaces": [self.name]}},
                self.s3_secret(SECRET, credentials),
                self._example("tenantkey.yaml"),
            ]
        )
        if not self.recovery_key.exists():
            self.installation.cli("key", "generate", "--out", self.recovery_key)
        wait_until(
            self.kubectl,
            "tenantkey",
            "default",
            lambda key: condition(key, "Ready").get("status") == "True",
            self.name,
            what=f"the key service to make the key {self.name}/default",
            seconds=60,
        )

    @property
    def kubectl(self) -> Any:
        """Return the cluster administrator's kubectl."""
        return self.installation.provider.kubectl()

    @property
    def credentials(self) -> Credentials:
        """Return the tenant's S3 user."""
        return self.store.user(self.name)

    @property
    def recovery_key(self) -> Path:
        """Return the file of the offline recovery key; the public half lies beside it."""
        return self.folder / "recovery.key"

    @property
    def images(self) -> Path:
        """Return the folder of the tenant's plain images."""
        return self.folder / "images"

    @property
    def recovery_public(self) -> str:
        """Return the recovery key's public half."""
        return self.recovery_key.with_suffix(".pub").read_text().strip()

    def s3_secret(self, name: str, credentials: Credentials) -> Object:
        """Return a Secret with S3 credentials, as a SecureTrainingJob or an EncryptedDataset names it."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.name},
            "stringData": {
                "AWS_ACCESS_KEY_ID": credentials.access_key,
                "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            },
        }

    def cli(self, *words: str | Path) -> str:
        """Run `lethe` with the tenant's S3 credentials."""
        return self.installation.cli(
            *words,
            AWS_ACCESS_KEY_ID=self.credentials.access_key,
            AWS_SECRET_ACCESS_KEY=self.credentials.secret_key,
        )

    def seal(self, source: Path, name: str = "digits", criticality: str = "sensitive") -> Path:
        """Seal a folder to the tenant's key and recovery key, upload it, and return the manifest's path.

        Each call takes a new prefix: sealing over another dataset is refused.
        """
        version = f"{name}-{secrets.token_hex(4)}"
        url = f"s3://{self.name}/{version}"
        manifest = self.folder / f"{version}.yaml"
        self.cli(
            *("dataset", "seal", source, url, "--name", name, "--namespace", self.name),
            *("--tenant", self.name, "--recipient", f"{self.name}/default"),
            *("--recovery-key", self.recovery_key.with_suffix(".pub"), "--criticality", criticality),
            *("--endpoint", self.store.endpoint, "--region", REGION, "--ca-file", self.store.ca),
            *("--secret-ref", SECRET, "--output", manifest),
        )
        return manifest

    def apply_dataset(self, manifest: Path) -> Object:
        """Apply what `seal` wrote and return it."""
        dataset = yaml.safe_load(manifest.read_text())
        self.kubectl.apply([dataset])
        return dataset

    def stored_objects(self, prefix: str = "") -> dict[str, bytes]:
        """Return every object below a prefix of the tenant's bucket, as anybody sees it who reads the storage."""
        bucket = self._bucket(prefix)
        return {key: bucket.get(key) for key, _ in bucket.list()}

    def corrupt(self, dataset: str) -> str:
        """Flip one bit of a dataset's largest object and return the object's name."""
        found = self.kubectl.read("get", "eds", dataset, f"--namespace={self.name}")
        bucket = self._bucket(found["spec"]["storage"]["url"].removeprefix(f"s3://{self.name}/"))
        name, _ = max(bucket.list(), key=lambda each: each[1])
        data = bytearray(bucket.get(name))
        data[len(data) // 2] ^= 1
        bucket.put(name, bytes(data))
        return name

    def put(self, key: str, data: bytes) -> None:
        """Write an object into the tenant's bucket."""
        self._bucket("").put(key, data)

    def delete(self, key: str) -> None:
        """Remove an object from the tenant's bucket."""
        self._bucket("").delete(key)

    def _bucket(self, prefix: str) -> ObjectStorePort:
        storage = Storage(
            url=f"s3://{self.name}/{prefix}",
            endpoint=self.store.endpoint,
            region=REGION,
            ca_bundle=self.store.ca.read_text(),
        )
        return open_store(storage, self.s3_secret(SECRET, self.credentials)["stringData"])

    def job(self, name: str = "digits", *commands: tuple[str, ...], gpus: int = 2, dataset: str = "digits") -> Object:
        """Return the example's job with this cluster's endpoint, keys and image; commands run one after the other."""
        job = self.manifest(EXAMPLES / "job.yaml", image=EXAMPLE_IMAGE, name=name)
        spec = job["spec"]
        spec["gpusPerReplica"] = gpus
        spec["datasets"] = [{"name": dataset}]
        container = spec["template"]["spec"]["containers"][0]
        chosen = commands or (train(dataset),)
        container["command"] = ["sh", "-ec", "\n".join(" ".join(command) for command in chosen)]
        return job

    def manifest(self, file: Path, *, image: str, name: str = "") -> Object:
        """Return the job in a file with all put in that its first lines ask for."""
        job = yaml.safe_load(file.read_text())
        name = name or job["metadata"]["name"]
        job["metadata"] = {"name": name, "namespace": self.name}
        spec = job["spec"]
        spec["outputs"]["storage"] = {
            "url": f"s3://{self.name}/models/{name}",
            "endpoint": self.store.endpoint,
            "region": REGION,
            "caBundle": self.store.ca.read_text(),
            "secretRef": {"name": SECRET},
        }
        spec["outputs"]["uploadTimeout"] = "20s"
        spec["outputs"]["recipients"] = [{"tenantKey": "default"}, {"publicKey": self.recovery_public}]
        spec["template"]["spec"]["containers"][0]["image"] = image
        return job

    def unseal_outputs(self, job: str, target: Path) -> None:
        """Open a job's outputs with the offline recovery key."""
        self.cli(
            *("dataset", "unseal", "--job", f"{self.name}/{job}", "--identity", self.recovery_key),
            *("--ca-file", self.store.ca, target),
        )

    def _example(self, file: str) -> Object:
        example = yaml.safe_load((EXAMPLES / file).read_text())
        example["metadata"]["namespace"] = self.name
        return example
