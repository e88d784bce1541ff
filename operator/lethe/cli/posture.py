"""What the posture of a node looks like to people."""

from lethe.decisions.posture import judge
from lethe.model.posture import Posture


def describe(found: Posture | None) -> list[str]:
    """Return what a scrub found, as lines: each check, and the settings about which there is none."""
    if found is None:
        return ["unknown: no scrub has recorded it"]
    lines = [
        f"{one.check}: {one.found}, " + ("good" if one.passed else f"not good, expected {one.expected}: {one.advice}")
        for one in judge(found)
    ]
    lines.append(
        f"kernel {found.kernel or 'unknown'}, driver {found.driver or 'unknown'}, transparent huge pages "
        f"{found.transparent_hugepages or 'unknown'}, huge pages set aside "
        f"{'unknown' if found.hugepages is None else found.hugepages}"
    )
    parameters = ", ".join(f"{name}={value}" for name, value in found.driver_parameters.items())
    return [*lines, f"driver parameters {parameters or 'unknown'}"]
