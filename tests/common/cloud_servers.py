"""Servers with the interfaces of Azure's and Google's storage.

Azure's is Azurite (`npm install azurite`), where it is; else its tests are skipped. Google publishes none, and those of
others lack the interface that obstore speaks: it is a small one of our own.
"""

import base64
import hmac
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from lethe.model.resources import Storage
from tests.common.memory_s3 import MemoryS3
from tests.common.s3 import BUCKET
from tests.common.servers import free_port, running_server

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, the same everywhere."""
CONTAINER = "acme"


@dataclass(frozen=True)
class CloudServer:
    """A server with one bucket or container."""

    endpoint: str
    root: str
    credentials: Mapping[str, str] | None

    def storage(self, prefix: str, root: str = "") -> Storage:
        """Return the storage below a prefix, of another bucket if `root` names one."""
        return Storage(url=f"{root or self.root}/{prefix}", endpoint=self.endpoint)


@contextmanager
def azurite(folder: Path) -> Iterator[CloudServer]:
    """Run Azurite, with one container."""
    program, port = _find("azurite-blob", "LETHE_AZURITE"), free_port()
    endpoint = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    command = [
        program, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent", "--blobHost",
        "127.0.0.1", "--blobPort", str(port),
    ]  # fmt: skip
    with running_server(command, port, folder / "log"):
        _create_container(endpoint)
        root = f"abfss://{CONTAINER}@{AZURE_ACCOUNT}.dfs.core.windows.net"
        yield CloudServer(endpoint, root, {"AZURE_STORAGE_KEY": AZURE_KEY})


@contextmanager
def memory_google() -> Iterator[CloudServer]:
    """Serve Google's XML interface from memory: there is no server of it that a test could run."""
    with MemoryS3() as server:
        key = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        yield CloudServer(server.endpoint, f"gs://{BUCKET}", {"GOOGLE_APPLICATION_CREDENTIALS": json.dumps(key)})


def _find(program: str, variable: str) -> str:
    found = os.environ.get(variable) or shutil.which(program)
    if not found or not Path(found).is_file():
        pytest.skip(f"no {program}: {variable} names none, and it is not in PATH")
    return found


def _create_container(endpoint: str) -> None:
    """Sign and send the one request that obstore has no call for."""
    headers = f"x-ms-date:{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}\nx-ms-version:2021-08-06"
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"{headers}\n{resource}"
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")).decode()
    answer = urllib3.request(
        "PUT",
        f"{endpoint}/{CONTAINER}?restype=container",
        headers={
            **dict(line.split(":", 1) for line in headers.split("\n")),
            "authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}",
            "content-length": "0",
        },
    )
    assert answer.status == 201, answer.data
