"""The operator is disturbed at every dangerous write, on a real API server (`make sweep` does each by itself)."""

from pathlib import Path

from tests.apiserver.site import open_site
from tests.apiserver.sweep import DANGEROUS, HOWS, disturb
from tests.simulation.quiet import quiet


async def test_disturbed_at_every_dangerous_write_custody_holds(tmp_path: Path) -> None:
    with quiet():
        async with open_site(tmp_path) as site:
            for fault in HOWS:
                problem = await disturb(site, list(DANGEROUS), fault)
                assert not problem, f"{fault}: {problem}"
