"""Hash of the parts of a pod that decide what its containers can do.

1. The operator records the hash of the object that the API server returned for its create request, in the holder of
   the GPUNode; a release hashes the live pod and compares (keys.md, Release protocol, step 5). Both sides are objects
   as the API server gives them, so its defaulting is in both.
2. What is covered: everything that runs, is mounted or is permitted. What may change on an honest pod is left out:
   scheduling (node name, gates, affinity, tolerations), deadlines, labels, annotations and status.
3. Fields that are absent and fields that are null are the same; nothing else is normalised.
"""

from typing import Any, Final

import msgspec

from lethe.crypto.derive import length_prefixed, sha256

_LABEL: Final = b"lethe/v1 pod"

COVERED: Final = (
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "imagePullSecrets",
    "initContainers",
    "os",
    "resourceClaims",
    "restartPolicy",
    "runtimeClassName",
    "securityContext",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "volumes",
)
"""Fields of a pod's spec. None of them may change after creation but the images of containers, and nobody but the
operator may change those on a pod of ours."""


def pod_hash(pod: dict[str, Any]) -> str:
    """Return the SHA-256 of the covered parts of a pod of the API server, 64 hex digits."""
    spec = pod.get("spec") or {}
    parts = {name: _without_null(spec[name]) for name in COVERED if spec.get(name) is not None}
    return sha256(length_prefixed(_LABEL, msgspec.json.encode(parts, order="deterministic"))).hex()


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    return value
