"""The scrub pod of one node and epoch (scrub.md, Scrub pod).

It takes every GPU of the node, sees the node's processes so that it can end those that still hold a GPU, and has no
token, no network (by the chart's NetworkPolicy) and no capability but KILL.
"""

from typing import Any, Final

from lethe.model import agentconfig
from lethe.model.agentconfig import ScrubConfig
from lethe.model.config import OperatorConfig
from lethe.model.names import (
    CONTAINER_SCRUB,
    GPU_RESOURCE,
    LABEL_NODE,
    LABEL_ROLE,
    POD_FINALIZER,
    ROLE_SCRUB,
    SCRUB_ACCOUNT,
    SYSTEM_NAMESPACE,
)
from lethe.specs.scheduling import own_toleration, required_node

_BOOT_ID: Final = "/run/lethe-host/boot_id"
_KERNEL: Final = "/run/lethe-host/kernel"
_UNSCHEDULABLE: Final = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}


def build_scrub_pod(name: str, scrub: ScrubConfig, config: OperatorConfig) -> dict[str, Any]:
    """Build the pod that scrubs every GPU of a node."""
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": SCRUB_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostPID": True,
        "affinity": required_node(scrub.node),
        "tolerations": [own_toleration(), _UNSCHEDULABLE, *config.tolerations],
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": CONTAINER_SCRUB,
                "image": config.image,
                "imagePullPolicy": config.image_pull_policy,
                "command": ["python3", "-m", "lethe.scrub_main"],
                "args": [
                    *("--config", agentconfig.encode(scrub)),
                    *("--boot-id-file", _BOOT_ID),
                    *("--kernel-folder", _KERNEL),
                ],
                "env": [{"name": "HOME", "value": "/tmp"}],
                "resources": {"limits": {GPU_RESOURCE: str(scrub.gpu_count)}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"], "add": ["KILL"]},
                },
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "boot-id", "mountPath": _BOOT_ID, "readOnly": True},
                    {"name": "kernel", "mountPath": _KERNEL, "readOnly": True, "recursiveReadOnly": "IfPossible"},
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            # A container's own /proc is a fresh one; where nodes are namespaces, only the node's tells the node's boot.
            {"name": "boot-id", "hostPath": {"path": "/proc/sys/kernel/random/boot_id", "type": "File"}},
            # A container's own /sys lacks securityfs, and AppArmor's usual profile closes it under its own path. Of the
            # folder itself, since not every kernel has it: a volume that is not there would keep the pod from starting.
            {"name": "kernel", "hostPath": {"path": "/sys/kernel", "type": "Directory"}},
        ],
    }
    if config.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in config.image_pull_secrets]
    if config.runtime_class_name is not None:
        spec["runtimeClassName"] = config.runtime_class_name
    return {
        "metadata": {
            "name": name,
            "namespace": SYSTEM_NAMESPACE,
            "labels": {LABEL_ROLE: ROLE_SCRUB, LABEL_NODE: scrub.node},
            "finalizers": [POD_FINALIZER],
        },
        "spec": spec,
    }
