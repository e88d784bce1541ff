"""The scrub kernels as they are loaded onto a GPU.

1. `scrub.cu` is the source, `scrub.ptx` what NVRTC made of it; both are committed and a test compares them.
2. The SHA-256 of the PTX goes into every scrub report: it names the code that looked at the memory.
"""

import hashlib
from importlib.resources import files


def load_ptx() -> bytes:
    """Return the PTX text that cuModuleLoadData takes, ended by the zero byte it expects."""
    return _ptx_text() + b"\0"


def ptx_sha256() -> str:
    """Return the SHA-256 of the committed scrub.ptx (without the ending zero byte), in hex."""
    return hashlib.sha256(_ptx_text()).hexdigest()


def _ptx_text() -> bytes:
    return files(__name__).joinpath("scrub.ptx").read_bytes()
