"""One kept connection to an API server, for requests whose time is measured."""

import json
from http.client import HTTPSConnection
from time import perf_counter
from types import TracebackType
from typing import Self

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Object
from tests.apiserver.server import Client


class Session:
    """Sends requests one after the other, as an administrator of the cluster."""

    def __init__(self, client: Client) -> None:
        self._connection = HTTPSConnection("127.0.0.1", client.port, timeout=30, context=client.context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: Object) -> tuple[int, Object, float]:
        """Send a request; return status, answer and seconds."""
        data = json.dumps(body).encode()
        began = perf_counter()
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        seconds = perf_counter() - began
        return answer.status, json.loads(text), seconds

    def bind(self, pod: Object, node: str, *, dry_run: bool = False) -> tuple[int, float]:
        """Bind a pod as a scheduler does; return status and seconds."""
        metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
        path = kinds.POD.path(metadata["name"], metadata["namespace"], "binding")
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        status, _, seconds = self.send("POST", path + ("?dryRun=All" if dry_run else ""), binding)
        return status, seconds
