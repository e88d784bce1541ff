"""Which objects are watched, and which the cycles' lists read of the same kinds: the same ones.

Jobs and training pods that are over and recorded carry the label `lethe.dev/released`; the server leaves them out.
"""

from typing import Final

from lethe.adapters import kube
from lethe.adapters.kube import Kind
from lethe.model.names import LABEL_RELEASED, LABEL_ROLE, ROLE_SCRUB, ROLE_TRAIN
from lethe.specs.fence import RBAC_COPY

WATCHED: Final[dict[Kind, str]] = {
    kube.JOB_CR: f"!{LABEL_RELEASED}",
    kube.DATASET: "",
    kube.TENANT: "",
    kube.TENANT_KEY: "",
    kube.GPU_NODE: "",
    kube.NODE: "",
    kube.POD: f"{LABEL_ROLE} in ({ROLE_TRAIN},{ROLE_SCRUB}),!{LABEL_RELEASED}",
    kube.ROLEBINDING: RBAC_COPY,
}
"""Label selectors; an empty one selects all."""
