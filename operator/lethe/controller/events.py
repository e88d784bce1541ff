"""Events: what `kubectl describe` tells about an object."""

from datetime import datetime
from typing import Any, Final

from lethe.adapters.kube import Kind
from lethe.crypto.derive import random_bytes
from lethe.decisions.actions import Note
from lethe.formats.quantity import format_time
from lethe.model.names import OPERATOR_ACCOUNT
from lethe.model.resources import Metadata

_MESSAGE_LIMIT: Final = 1024
_CLUSTER_SCOPED_NAMESPACE: Final = "default"


def build_event(kind: Kind, metadata: Metadata, note: Note, now: datetime) -> dict[str, Any]:
    """Build the event of a note about an object."""
    namespace = metadata.namespace or _CLUSTER_SCOPED_NAMESPACE
    time = format_time(now)
    return {
        "metadata": {"name": f"{metadata.name[:230]}.{random_bytes(8).hex()}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        },
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "message": note.message[:_MESSAGE_LIMIT],
        "source": {"component": OPERATOR_ACCOUNT},
        "reportingComponent": OPERATOR_ACCOUNT,
        "reportingInstance": OPERATOR_ACCOUNT,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
