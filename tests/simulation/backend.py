"""What the simulated scheduler, kubelets and people need of an API server, simulated or real."""

from typing import Any, Protocol

from lethe.adapters.kube import Kind, Object


class Backend(Protocol):
    """An API server. A missing object or a lost race is a ConflictError, a refusal a RefusedError."""

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None: ...

    def all(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]: ...

    def create(self, kind: Kind, body: Object) -> Object: ...

    def patch(self, kind: Kind, name: str, namespace: str, patch: Any, subresource: str = "") -> Object: ...

    def delete(
        self, kind: Kind, name: str, namespace: str = "", uid: str | None = None, grace: int | None = None
    ) -> None: ...

    def bind(self, namespace: str, name: str, uid: str, node: str, lag: float = 0.0) -> None: ...
