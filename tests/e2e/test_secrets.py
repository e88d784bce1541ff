"""A tenant's names, contents and keys stand nowhere but in memory; what is planted on purpose is found everywhere."""

from collections.abc import Iterator

import pytest

from lethe.crypto import hpke
from lethe.formats.keyring import KEYRING_NAME, open_keyring, parse_keyring
from tests.common.digits import make_canary
from tests.common.installation import EXAMPLE_IMAGE
from tests.common.objects import Object, message, phase, remove, wait_for_running
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.e2e.jobs import reach, start
from tests.e2e.places import forms, places

LONG_TRAINING = ("python3", "/app/train.py", "--dataset", "digits", "--epochs", "100000")
CONTROL = "control"


@pytest.fixture
def training(world: World, acme: TrialTenant) -> Iterator[Object]:
    """Run a job that is training, with its keys released, as long as the test looks around."""
    name = start(acme, acme.job("watched", LONG_TRAINING))
    job = reach(acme, name, "Running")
    assert phase(job) == "Running", message(job)
    yield job
    job = reach(acme, name, "Running")
    assert phase(job) == "Running", "the job ended before the search did"


@pytest.fixture
def control(world: World, acme: TrialTenant) -> Iterator[str]:
    """Plant a secret of its own in every place and return it."""
    planted = make_canary()
    kubectl = world.provider.kubectl()
    acme.put(f"planted-{planted}", planted.encode())
    kubectl.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CONTROL}},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": CONTROL, "namespace": CONTROL},
                "stringData": {"planted": planted},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": CONTROL, "namespace": CONTROL},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
                    "containers": [
                        {
                            "name": CONTROL,
                            "image": EXAMPLE_IMAGE,
                            "imagePullPolicy": "IfNotPresent",
                            "env": [{"name": "PLANTED", "value": planted}],
                            "command": ["sh", "-c", 'echo "$PLANTED" | tee /scratch/planted; sync; exec sleep 86400'],
                            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                        }
                    ],
                    "volumes": [{"name": "scratch", "emptyDir": {}}],
                },
            },
        ]
    )
    try:
        wait_for_running(kubectl, CONTROL, CONTROL, what="the pod with the planted secret to run")
        yield planted
    finally:
        acme.delete(f"planted-{planted}")
        remove(kubectl, "namespace", CONTROL)


def dataset_keys(tenant: TrialTenant) -> list[bytes]:
    """Open the tenant's dataset keys as it can itself, with the offline recovery key."""
    url = tenant.kubectl.read("get", "eds", "digits", f"--namespace={tenant.name}")["spec"]["storage"]["url"]
    prefix = url.removeprefix(f"s3://{tenant.name}/")
    keyring = parse_keyring(tenant.stored_objects(prefix)[KEYRING_NAME])
    return list(open_keyring(keyring, hpke.parse_private(tenant.recovery_key.read_text())).values())


def test_no_secret_anywhere(
    world: World, acme: TrialTenant, globex: TrialTenant, canary: str, training: Object, control: str
) -> None:
    secrets = [form for secret in (canary.encode(), *dataset_keys(acme)) for form in forms(secret)]
    for name, search in places(world, [acme, globex]).items():
        found = search([control.encode(), *secrets])
        planted = [where for where, needle in found if needle == control.encode()]
        assert planted, f"the planted secret was not found: the search of {name} finds nothing"
        assert [where for where, needle in found if needle in secrets] == [], f"a secret of acme stands in {name}"
