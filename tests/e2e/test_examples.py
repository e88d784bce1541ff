"""The examples run as a user runs them: data is sealed at home, manifests are applied, results come back."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.folders import PROJECT
from tests.common.objects import message, phase
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.e2e.example_image import EXAMPLES, IMAGE, RECIPE
from tests.e2e.jobs import end, start, training_log


@pytest.fixture(scope="module")
def image(world: World) -> str:
    """Return the image of the examples, which is on every node."""
    if shutil.which("apt-get") is None:
        pytest.skip("the image holds Debian's PyTorch, and apt-get is not here")
    world.provider.load_image(images.build(RECIPE))
    return IMAGE


@pytest.fixture(scope="module")
def tenant(world: World) -> TrialTenant:
    """Return a tenant without datasets."""
    made = world.tenant("acme")
    made.set_up()
    return made


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_trains_and_its_owner_gets_the_model(
    example: str, image: str, tenant: TrialTenant, tmp_path: Path
) -> None:
    folder = PROJECT / "examples" / example
    subprocess.run([sys.executable, folder / "make_data.py", tmp_path / "data"], check=True)
    job = tenant.manifest(folder / "job.yaml", image=image)
    [use] = job["spec"]["datasets"]
    tenant.apply_dataset(tenant.seal(tmp_path / "data", use["name"]))

    name = start(tenant, job)
    ended = end(tenant, name)
    assert phase(ended) == "Succeeded", message(ended)
    assert "accuracy on" in training_log(tenant, name)
    tenant.unseal_outputs(name, tmp_path / "results")
    [model] = (tmp_path / "results").glob("model.*")
    assert model.stat().st_size > 0
    metrics = json.loads((tmp_path / "results/metrics.json").read_text())
    assert metrics["accuracy"] > 2 / metrics["classes"]
