"""What a tenant's pod template may say (custody.md, The pod template is an allow-list).

A template that could reach the host would void every promise. What is not listed here is refused, by its path.

1. Fields are allowed by name, at every level that could reach outside the container; unknown fields are refused, so a
   field that a later Kubernetes adds is closed until somebody has looked at it.
2. What Lethe sets itself (GPU requests, service account, names, labels, mounts and variables of its own) is refused,
   never silently replaced.
3. The first container is the training container: it gets GPUs, keys, data and outputs.
"""

import posixpath
from collections.abc import Iterator
from typing import Any, Final

from lethe.model import reasons
from lethe.model.errors import ResourceError
from lethe.model.names import (
    CREDENTIALS_PATH,
    GPU_RESOURCE,
    GROUP,
    KEYS_PATH,
    NODE_LABEL,
    OUTPUTS_PATH,
    POD_PREFIX,
    TAINT,
)
from lethe.model.resources import DatasetUse

Refusal = tuple[str, str]
"""Path of the field and why it is refused."""

_METADATA: Final = {"labels", "annotations"}
_POD: Final = {
    "containers",
    "initContainers",
    "volumes",
    "securityContext",
    "nodeSelector",
    "tolerations",
    "terminationGracePeriodSeconds",
    "restartPolicy",
    "dnsPolicy",
    "dnsConfig",
    "hostAliases",
    "hostname",
    "subdomain",
    "enableServiceLinks",
    "imagePullSecrets",
    "automountServiceAccountToken",
}
_POD_SECURITY: Final = {
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "fsGroup",
    "fsGroupChangePolicy",
    "supplementalGroups",
    "seccompProfile",
}
_CONTAINER: Final = {
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "ports",
    "resources",
    "volumeMounts",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "stdin",
    "stdinOnce",
    "tty",
}
_CONTAINER_SECURITY: Final = {
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "privileged",
    "capabilities",
    "seccompProfile",
}
_MOUNT: Final = {"name", "mountPath", "readOnly", "subPath"}
_PORT: Final = {"name", "containerPort", "protocol"}
_RESOURCES: Final = {"limits", "requests"}
_RESOURCE_NAMES: Final = {"cpu", "memory", "ephemeral-storage"}
_VOLUMES: Final = {"configMap", "secret", "downwardAPI", "projected", "emptyDir"}
_PROJECTIONS: Final = {"configMap", "secret", "downwardAPI"}
_OWN_PATHS: Final = (KEYS_PATH, CREDENTIALS_PATH, f"{KEYS_PATH}-token", OUTPUTS_PATH)
_OWN_VARIABLES: Final = "LETHE_"


def verify_template(template: dict[str, Any], datasets: list[DatasetUse], *, require_digest: bool) -> None:
    """Check a pod template; raise ResourceError that names every refused field."""
    refusals = list(_refusals(template, datasets))
    if refusals:
        raise ResourceError(
            reasons.TEMPLATE_FIELD_REFUSED, "; ".join(f"spec.template.{path}: {why}" for path, why in refusals)
        )
    if require_digest:
        _verify_digests(template)


def _refusals(template: dict[str, Any], datasets: list[DatasetUse]) -> Iterator[Refusal]:
    for field in sorted(template.keys() - {"metadata", "spec"}):
        yield field, "unknown field"
    yield from _metadata(template.get("metadata") or {})
    spec = template.get("spec") or {}
    yield from _unlisted("spec", spec, _POD)
    yield from _pod(spec)
    yield from _security("spec.securityContext", spec.get("securityContext") or {}, _POD_SECURITY)
    for index, volume in enumerate(spec.get("volumes") or []):
        yield from _volume(f"spec.volumes[{index}]", volume)
    paths = (*_OWN_PATHS, *(use.path for use in datasets if use.path is not None))
    names: set[str] = set()
    if not spec.get("containers"):
        yield "spec.containers", "at least one container is needed"
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            path = f"spec.{group}[{index}]"
            yield from _container(path, container, paths)
            name = container.get("name", "")
            if name in names:
                yield f"{path}.name", f"{name} is there twice"
            names.add(name)


def _metadata(metadata: dict[str, Any]) -> Iterator[Refusal]:
    yield from _unlisted("metadata", metadata, _METADATA)
    for key in metadata.get("labels") or {}:
        if _domain(key) == GROUP:
            yield f"metadata.labels[{key}]", "labels of lethe.dev are set by Lethe"
    for key in metadata.get("annotations") or {}:
        domain = _domain(key)
        if domain == GROUP or domain.endswith("kubernetes.io") or domain.endswith("k8s.io"):
            yield f"metadata.annotations[{key}]", "annotations of Kubernetes and Lethe may change what a pod may do"


def _pod(spec: dict[str, Any]) -> Iterator[Refusal]:
    if spec.get("restartPolicy", "Never") != "Never":
        yield "spec.restartPolicy", f"found {spec['restartPolicy']}, only Never is possible"
    if spec.get("automountServiceAccountToken"):
        yield "spec.automountServiceAccountToken", "training pods get no token"
    for key in spec.get("nodeSelector") or {}:
        if _domain(key) == GROUP or key == NODE_LABEL:
            yield f"spec.nodeSelector[{key}]", "Lethe chooses the node"
    for index, toleration in enumerate(spec.get("tolerations") or []):
        if toleration.get("key", "") in ("", TAINT):
            yield f"spec.tolerations[{index}]", f"the taint {TAINT} may not be tolerated, nor every taint at once"


def _security(path: str, context: dict[str, Any], allowed: set[str]) -> Iterator[Refusal]:
    yield from _unlisted(path, context, allowed)
    profile = (context.get("seccompProfile") or {}).get("type", "RuntimeDefault")
    if profile != "RuntimeDefault":
        yield f"{path}.seccompProfile", f"found {profile}, only RuntimeDefault is possible"
    if context.get("privileged"):
        yield f"{path}.privileged", "must be false"
    if context.get("allowPrivilegeEscalation"):
        yield f"{path}.allowPrivilegeEscalation", "must be false"
    if context.get("readOnlyRootFilesystem") is False:
        yield f"{path}.readOnlyRootFilesystem", "must be true; mount a memory volume where the container writes"
    capabilities = context.get("capabilities") or {}
    yield from _unlisted(f"{path}.capabilities", capabilities, {"drop"})


def _volume(path: str, volume: dict[str, Any]) -> Iterator[Refusal]:
    yield from _unlisted(path, volume, _VOLUMES | {"name"})
    if str(volume.get("name", "")).startswith(POD_PREFIX):
        yield f"{path}.name", f"names that begin with {POD_PREFIX} are Lethe's"
    if "emptyDir" in volume and (volume["emptyDir"] or {}).get("medium") != "Memory":
        yield f"{path}.emptyDir.medium", "must be Memory: nothing of a job is written to a disk"
    for index, source in enumerate((volume.get("projected") or {}).get("sources") or []):
        yield from _unlisted(f"{path}.projected.sources[{index}]", source, _PROJECTIONS)


def _container(path: str, container: dict[str, Any], own_paths: tuple[str, ...]) -> Iterator[Refusal]:
    yield from _unlisted(path, container, _CONTAINER)
    name = container.get("name") or ""
    if not name or name.startswith(POD_PREFIX):
        yield f"{path}.name", f"must not be empty, and names that begin with {POD_PREFIX} are Lethe's"
    if not container.get("image"):
        yield f"{path}.image", "an image is needed"
    yield from _security(f"{path}.securityContext", container.get("securityContext") or {}, _CONTAINER_SECURITY)
    for index, port in enumerate(container.get("ports") or []):
        yield from _unlisted(f"{path}.ports[{index}]", port, _PORT)
    for variable in container.get("env") or []:
        if str(variable.get("name", "")).startswith(_OWN_VARIABLES):
            yield f"{path}.env[{variable['name']}]", f"variables that begin with {_OWN_VARIABLES} are Lethe's"
    resources = container.get("resources") or {}
    yield from _unlisted(f"{path}.resources", resources, _RESOURCES)
    for group in sorted(_RESOURCES):
        for name in sorted((resources.get(group) or {}).keys() - _RESOURCE_NAMES):
            why = (
                "set spec.gpusPerReplica instead" if name == GPU_RESOURCE else "devices and huge pages are not scrubbed"
            )
            yield f"{path}.resources.{group}[{name}]", why
    for index, mount in enumerate(container.get("volumeMounts") or []):
        yield from _mount(f"{path}.volumeMounts[{index}]", mount, own_paths)


def _mount(path: str, mount: dict[str, Any], own_paths: tuple[str, ...]) -> Iterator[Refusal]:
    yield from _unlisted(path, mount, _MOUNT)
    if str(mount.get("name", "")).startswith(POD_PREFIX):
        yield f"{path}.name", f"volumes that begin with {POD_PREFIX} are Lethe's"
    target = posixpath.normpath("/" + str(mount.get("mountPath", "")).lstrip("/"))
    for own in own_paths:
        if _is_below(target, own) or _is_below(own, target):
            yield f"{path}.mountPath", f"{target} overlaps {own}, which Lethe mounts"


def _verify_digests(template: dict[str, Any]) -> None:
    spec = template.get("spec") or {}
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            if "@sha256:" not in container["image"]:
                raise ResourceError(
                    reasons.IMAGE_WITHOUT_DIGEST,
                    f"spec.template.spec.{group}[{index}].image: found {container['image']}, this cluster demands a "
                    "digest: NAME@sha256:…",
                )


def _unlisted(path: str, value: dict[str, Any], allowed: set[str]) -> Iterator[Refusal]:
    for field in sorted(key for key in value.keys() - allowed if value[key] is not None):
        yield f"{path}.{field}", "not allowed in a secure job"


def _domain(key: str) -> str:
    domain = key.rpartition("/")[0]
    return GROUP if domain == GROUP or domain.endswith("." + GROUP) else domain


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
