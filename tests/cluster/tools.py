"""The cluster's programs, built from Go modules into the cache.

1. `kube/go.mod` pins every version. The folder is named by the hash of go.mod, go.sum, the sources and the build's
   flags, so that a change is a new folder and an old one is never half replaced.
2. Each program is built aside and renamed into place: what lies in `bin` is complete.
3. Only what is asked for is built; a user of kind waits neither for the kubelet nor for containerd.
"""

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from . import folders
from .errors import ClusterError
from .progress import say

MODULE = Path(__file__).resolve().parent / "kube"
PACKAGES = {
    "lethe-kube": "./cmd/lethe-kube",
    "lethe-pause": "./cmd/lethe-pause",
    "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
    "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
    "helm": "helm.sh/helm/v4/cmd/helm",
    "kind": "sigs.k8s.io/kind",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw",
}
LINKS = {"kubectl": "lethe-kube"}
EVERYWHERE = ("lethe-kube", "helm", "versitygw")
FOR_EMBEDDED = (*EVERYWHERE, "lethe-pause", "containerd", "containerd-shim-runc-v2", "ctr")
FOR_KIND = (*EVERYWHERE, "kind")
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
REPORT_EVERY = 20.0


def flags(version: str) -> list[str]:
    """Return the flags of `go build`; the version is what the API server and kubectl say they are."""
    major, minor = version.lstrip("v").split(".")[:2]
    variables = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamped = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in variables.items())
    return ["-trimpath", "-ldflags", f"-s -w {stamped}"]


def kubernetes_version(go_mod: str) -> str:
    """Return the version of Kubernetes that go.mod pins."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ClusterError(
            "kube/go.mod names no version of k8s.io/kubernetes; expected a line `k8s.io/kubernetes vX.Y.Z`."
        )
    return found[1]


def source_hash(module: Path = MODULE) -> str:
    """Return the name of the folder for these sources."""
    go_mod = (module / "go.mod").read_text()
    digest = hashlib.sha256("\0".join([*flags(kubernetes_version(go_mod)), repr(BUILD_ENVIRONMENT)]).encode())
    for path in sorted([module / "go.mod", module / "go.sum", *module.rglob("*.go")]):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(module).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def bin_folder() -> Path:
    """Return where the programs lie once they are built."""
    return folders.cache() / "tools" / source_hash() / "bin"


def kubectl() -> Path:
    """Return the path of kubectl; `require` has built it."""
    return bin_folder() / "kubectl"


def require(programs: Iterable[str]) -> Path:
    """Build those of the programs that are missing and return their folder."""
    target = bin_folder()
    wanted = list(programs)
    if not missing(target, wanted):
        return target
    with folders.exclusive(target.parent / "lock"):
        lacking = missing(target, wanted)
        if lacking:
            _build(lacking, target)
    return target


def missing(target: Path, programs: Iterable[str]) -> list[str]:
    """Return those of the programs, or of their links, that are not in the folder."""
    linked = [program for link, program in LINKS.items() if not (target / link).exists()]
    return [program for program in programs if program in linked or not (target / program).exists()]


def _build(programs: list[str], target: Path) -> None:
    if shutil.which("go") is None:
        raise ClusterError("Go was not found; the cluster is built from Go modules. Install Go 1.26 or newer.")
    aside = folders.empty(target.parent / "building")
    say(f"Building {', '.join(programs)} from source: once, some ten minutes on two cores.")
    started = time.monotonic()
    version = kubernetes_version((MODULE / "go.mod").read_text())
    command = ["go", "build", "-v", *flags(version), "-o", f"{aside}/", *(PACKAGES[program] for program in programs)]
    log = target.parent / "build.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=MODULE, env={**os.environ, **BUILD_ENVIRONMENT}, stdout=file, stderr=file
        )
        _report_until_end(process, log)
    if process.returncode != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise ClusterError(f"`go build` ended with status {process.returncode}; the whole log is {log}:\n{end}")
    target.mkdir(exist_ok=True)
    for program in programs:
        (aside / program).rename(target / program)
    for link, program in LINKS.items():
        if program in programs:
            (target / link).unlink(missing_ok=True)
            (target / link).symlink_to(program)
    aside.rmdir()
    say(f"Built {', '.join(programs)} in {time.monotonic() - started:.0f} s.")


def _report_until_end(process: subprocess.Popen[bytes], log: Path) -> None:
    """Say now and then how many packages are compiled (`go build -v` prints one line for each)."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(REPORT_EVERY):
            lines = log.read_text(errors="replace").splitlines()
            compiled = sum(not line.startswith("go: ") for line in lines)
            say(f"  {compiled} packages compiled, {len(lines) - compiled} modules downloaded so far.")

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    process.wait()
    ended.set()
    reporter.join()
