"""The API server, for every process of Lethe: the one importer of `kubernetes.aio`.

Objects are plain dicts as the server returns them; the layers above turn them into types.

1. Reads are live: `resourceVersion` is never sent, so the server answers from a quorum, and no list is cut into pages.
2. A missing object is None for `get` and no error for `delete`; for a write it is a ConflictError: the world has moved
   on, read again.
3. Errors are of the LetheError family: ConflictError, AlreadyExistsError, RefusedError, UnavailableError. Nothing is
   retried here.
"""

import builtins
import os
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from kubernetes.aio import client, config

from lethe.model.errors import AlreadyExistsError, ConflictError, LetheError, RefusedError, UnavailableError, UsageError
from lethe.model.names import GROUP, VERSION

Object = dict[str, Any]
Objects = list[Object]

_TIMEOUT_SECONDS: Final = 30.0
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_FAILED_TEST: Final = "the server rejected our request due to an error in our request"
"""What the API server says, as 422, when a `test` of a JSON patch does not hold."""


@dataclass(frozen=True)
class Kind:
    """A kind of object: where its endpoints are and what stands in `apiVersion` and `kind`."""

    group: str
    version: str
    plural: str
    namespaced: bool
    kind: str

    @property
    def api_version(self) -> str:
        """Return the value of `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """Return the URL path of one object, or of the collection."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


POD: Final = Kind("", "v1", "pods", True, "Pod")
NODE: Final = Kind("", "v1", "nodes", False, "Node")
SECRET: Final = Kind("", "v1", "secrets", True, "Secret")
CONFIGMAP: Final = Kind("", "v1", "configmaps", True, "ConfigMap")
NAMESPACE: Final = Kind("", "v1", "namespaces", False, "Namespace")
SERVICE: Final = Kind("", "v1", "services", True, "Service")
EVENT: Final = Kind("", "v1", "events", True, "Event")
SERVICEACCOUNT: Final = Kind("", "v1", "serviceaccounts", True, "ServiceAccount")
ROLE: Final = Kind("rbac.authorization.k8s.io", "v1", "roles", True, "Role")
ROLEBINDING: Final = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", True, "RoleBinding")
CLUSTERROLE: Final = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", False, "ClusterRole")
CLUSTERROLEBINDING: Final = Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings", False, "ClusterRoleBinding")
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", True, "Deployment")
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "networkpolicies", True, "NetworkPolicy")
ENDPOINT_SLICE: Final = Kind("discovery.k8s.io", "v1", "endpointslices", True, "EndpointSlice")
LEASE: Final = Kind("coordination.k8s.io", "v1", "leases", True, "Lease")
ADMISSION_POLICY: Final = Kind(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", False, "ValidatingAdmissionPolicy"
)
ADMISSION_BINDING: Final = Kind(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", False, "ValidatingAdmissionPolicyBinding"
)
CRD: Final = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", False, "CustomResourceDefinition")
JOB_CR: Final = Kind(GROUP, VERSION, "securetrainingjobs", True, "SecureTrainingJob")
DATASET: Final = Kind(GROUP, VERSION, "encrypteddatasets", True, "EncryptedDataset")
TENANT_KEY: Final = Kind(GROUP, VERSION, "tenantkeys", True, "TenantKey")
TENANT: Final = Kind(GROUP, VERSION, "tenants", False, "Tenant")
GPU_NODE: Final = Kind(GROUP, VERSION, "gpunodes", False, "GPUNode")
RECEIPT: Final = Kind(GROUP, VERSION, "scrubreceipts", False, "ScrubReceipt")

_SELF_REVIEW: Final = Kind("authentication.k8s.io", "v1", "selfsubjectreviews", False, "SelfSubjectReview")
_TOKEN_REVIEW: Final = Kind("authentication.k8s.io", "v1", "tokenreviews", False, "TokenReview")


class _Listed(msgspec.Struct):
    """The answer to a list."""

    items: list[msgspec.Raw] | None = None


class Kube:
    """A connection to the API server. Use as an async context manager; `connect` makes one."""

    def __init__(self, api: client.ApiClient, *, in_cluster: bool = False) -> None:
        self._api = api
        self._in_cluster = in_cluster
        self._servers: dict[str, client.ApiClient] = {}
        """Connections to single API servers, by URL."""

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """Connect with the pod's own account, or with a kubeconfig where there is none or one is named."""
        configuration = client.Configuration()
        in_cluster = kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
        try:
            if in_cluster:
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                await config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=kubeconfig, context=context, client_configuration=configuration, persist_config=False
                )
        except (config.ConfigException, OSError) as error:
            raise UsageError(
                f"no cluster to talk to: {error}. Set KUBECONFIG to a kubeconfig file, or run inside a pod"
            ) from error
        return cls(client.ApiClient(configuration), in_cluster=in_cluster)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        for api in (self._api, *self._servers.values()):
            await api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """Return one object, or None."""
        status, body = await self._call("GET", kind.path(name, namespace))
        return None if status == 404 else _parse(kind.path(name, namespace), status, body)

    async def exists(self, kind: Kind, name: str, namespace: str = "") -> bool:
        """Say whether an object exists, without reading more than its metadata."""
        path = kind.path(name, namespace)
        status, body = await self._call("GET", path, accept=_METADATA)
        if status != 404:
            _parse(path, status, body)
        return status != 404

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Objects:
        """Return all objects of a kind, in one namespace or everywhere; a live read."""
        items: Objects = [msgspec.json.decode(raw) for raw in await self.list_raw(kind, namespace, labels, fields)]
        for item in items:
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
        return items

    async def list_raw(
        self, kind: Kind, namespace: str = "", labels: str = "", fields: str = ""
    ) -> builtins.list[msgspec.Raw]:
        """Return the same objects as JSON: whoever decodes them one by one holds only what it needs of each."""
        query = {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        path = kind.path(namespace=namespace)
        status, body = await self._call("GET", path, query=query)
        if status != 200:
            raise _error(path, status, body)
        return msgspec.json.decode(body, type=_Listed).items or []

    async def create(self, kind: Kind, body: Object) -> Object:
        """Create an object and return it as the server stored it; raise AlreadyExistsError."""
        path = kind.path(namespace=body["metadata"].get("namespace", ""))
        return _parse(path, *await self._call("POST", path, body=_typed(kind, body)))

    async def own_name(self) -> str:
        """Return the user name under which the API server knows this connection."""
        path = _SELF_REVIEW.path()
        answer = _parse(path, *await self._call("POST", path, body=_typed(_SELF_REVIEW, {"metadata": {}})))
        return str(answer["status"]["userInfo"]["username"])

    async def replace(self, kind: Kind, body: Object, subresource: str = "") -> Object:
        """Replace an object, or its subresource, if its resourceVersion and uid are still the ones in `body`."""
        metadata = body["metadata"]
        path = kind.path(metadata["name"], metadata.get("namespace", ""), subresource)
        return _parse(path, *await self._call("PUT", path, body=_typed(kind, body)))

    async def patch(
        self, kind: Kind, name: str, namespace: str, patch: Objects | Object, subresource: str = ""
    ) -> Object:
        """Apply a JSON patch (a list) or a merge patch (a dict).

        A merge patch that carries `metadata.uid` and `metadata.resourceVersion` is a compare-and-swap.
        """
        path = kind.path(name, namespace, subresource)
        content_type = _JSON_PATCH if isinstance(patch, list) else _MERGE_PATCH
        return _parse(path, *await self._call("PATCH", path, body=patch, content_type=content_type))

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete an object; a missing one is no error. `uid` and `resource_version` are preconditions."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {
            key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value is not None
        }
        if preconditions:
            options["preconditions"] = preconditions
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = kind.path(name, namespace)
        status, body = await self._call("DELETE", path, body=options)
        if status != 404:
            _parse(path, status, body)

    async def logs(self, namespace: str, pod: str, container: str) -> bytes:
        """Return everything that a container has written to its log."""
        path = POD.path(pod, namespace, "log")
        status, body = await self._call("GET", path, query={"container": container})
        if status != 200:
            _parse(path, status, body)
        return body

    async def review_token(self, token: str, audience: str) -> Object:
        """Return the status of a TokenReview for exactly this audience."""
        path = _TOKEN_REVIEW.path()
        review = _typed(_TOKEN_REVIEW, {"metadata": {}, "spec": {"token": token, "audiences": [audience]}})
        answer = _parse(path, *await self._call("POST", path, body=review))
        status: Object = answer.get("status") or {}
        return status

    async def bind_dry_run(self, namespace: str, pod: str, uid: str, node: str) -> str | None:
        """Try to bind a pod to a node without doing it, on every API server: each learns of a closed grant by itself.

        Return a server's sentence when admission refuses on all of them, and None when on one of them nothing but the
        pod's own state stands in the way. Raise UnavailableError when one of them does not answer.
        """
        path = POD.path(pod, namespace, "binding")
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod, "namespace": namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        refusal = None
        for api in await self._every_server():
            status, body = await self._call("POST", path, body=binding, query={"dryRun": "All"}, api=api)
            if status not in (403, 404, 409, 422):
                _parse(path, status, body)
            if status not in (403, 422):
                return None
            refusal = _message(body)
        return refusal

    async def _every_server(self) -> tuple[client.ApiClient, ...]:
        """Return a connection to each API server: inside the cluster those behind the Service, else the one we have."""
        if not self._in_cluster:
            return (self._api,)
        slices = await self.list(ENDPOINT_SLICE, "default", labels="kubernetes.io/service-name=kubernetes")
        urls = sorted(_urls(slices))
        if not urls:
            raise UnavailableError("no EndpointSlice of Service default/kubernetes names an API server")
        for url in urls:
            if url not in self._servers:
                configuration = copy(self._api.configuration)
                configuration.host, configuration.tls_server_name = url, "kubernetes.default.svc"
                self._servers[url] = client.ApiClient(configuration)
        return tuple(self._servers[url] for url in urls)

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        api: client.ApiClient | None = None,
    ) -> tuple[int, bytes]:
        """Send one request and return status and body; raise UnavailableError when no answer comes."""
        api = api or self._api
        url = api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "Content-Type": content_type}
        try:
            await api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = await api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
            )
            return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"the API server does not answer {method} {path}: {reason}") from error


def _urls(slices: Objects) -> set[str]:
    """Return the URLs of the API servers that EndpointSlices name."""
    return {
        f"https://[{address}]:{port['port']}" if found["addressType"] == "IPv6" else f"https://{address}:{port['port']}"
        for found in slices
        for port in found.get("ports") or []
        for endpoint in found.get("endpoints") or []
        for address in endpoint["addresses"]
    }


def _typed(kind: Kind, body: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **body}


def _parse(path: str, status: int, body: bytes) -> Object:
    """Return the object of a good answer; raise the error that another status stands for."""
    if 200 <= status < 300:
        answer: Object = msgspec.json.decode(body)
        return answer
    raise _error(path, status, body)


def _error(path: str, status: int, body: bytes) -> LetheError:
    message = f"{path}: {_message(body)} ({status})"
    if status == 409:
        return AlreadyExistsError(message) if _reason(body) == "AlreadyExists" else ConflictError(message)
    if status == 404 or (status == 422 and _message(body) == _FAILED_TEST):
        return ConflictError(message)
    if status in (401, 408, 429) or status >= 500:
        return UnavailableError(message)
    return RefusedError(message)


def _message(body: bytes) -> str:
    return str(_status(body).get("message") or body[:200].decode(errors="replace"))


def _reason(body: bytes) -> str:
    return str(_status(body).get("reason", ""))


def _status(body: bytes) -> Object:
    """Return the metav1.Status of an error; a proxy in between may have sent something else."""
    try:
        status = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return status if isinstance(status, dict) else {}
