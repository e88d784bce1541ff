"""Compile the scrub kernels to PTX with NVRTC; no GPU is needed.

    python3 -m tests.simgpu.compile_ptx           writes scrub.ptx beside scrub.cu
    python3 -m tests.simgpu.compile_ptx --check   exits 1 when the committed scrub.ptx is not what the source gives

1. The compiler is pinned (`NVRTC_REQUIREMENT`): another version writes another text. The oldest 12.x is taken on
   purpose, since drivers refuse PTX that is newer than they are, and any driver of CUDA 12.0 or later takes this.
2. PTX for compute_75 (Turing) runs on every later GPU.
"""

import argparse
import ctypes
import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NVRTC_REQUIREMENT = "nvidia-cuda-nvrtc-cu12==12.0.140"
NVRTC_VERSION = (12, 0)
OPTIONS = ("--gpu-architecture=compute_75", "--std=c++03")
KERNELS = Path(__file__).resolve().parents[2] / "operator" / "lethe" / "agents" / "kernels"


class NvrtcUnavailableError(Exception):
    """The pinned NVRTC is not installed; the message says what to install."""


class CompileError(Exception):
    """NVRTC refused the source; the message is its log."""


def compile_ptx(source: str) -> bytes:
    """Return the PTX text (no ending zero byte) that the pinned NVRTC makes of CUDA C source."""
    # NVRTC leaves the calling thread in the C locale, where text files are read as ASCII: a thread of its own.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_compile, source).result()


def _compile(source: str) -> bytes:
    nvrtc = _load_nvrtc()
    program = ctypes.c_void_p()
    created = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"scrub.cu", 0, None, None)
    if created != 0:
        raise CompileError(f"nvrtcCreateProgram returned {created}, expected 0.")
    try:
        options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
        if nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options) != 0:
            raise CompileError(_read_text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode())
        return _read_text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read_text(get_size: Callable[..., int], get_text: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    get_size(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    get_text(program, text)
    return text.value


def _load_nvrtc() -> ctypes.CDLL:
    try:
        package = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        package = None
    if package is None or not package.submodule_search_locations:
        raise NvrtcUnavailableError(f"NVRTC is not installed; the check needs: pip install {NVRTC_REQUIREMENT}")
    nvrtc = ctypes.CDLL(str(Path(package.submodule_search_locations[0]) / "lib" / "libnvrtc.so.12"))
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    if (major.value, minor.value) != NVRTC_VERSION:
        raise NvrtcUnavailableError(
            f"NVRTC is {major.value}.{minor.value}, but the committed PTX was made by "
            f"{NVRTC_VERSION[0]}.{NVRTC_VERSION[1]}: pip install {NVRTC_REQUIREMENT}"
        )
    return nvrtc


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the scrub kernels to PTX with NVRTC.")
    parser.add_argument("--check", action="store_true", help="compare with the committed scrub.ptx, write nothing")
    arguments = parser.parse_args()
    committed = KERNELS / "scrub.ptx"
    try:
        compiled = compile_ptx((KERNELS / "scrub.cu").read_text())
    except (NvrtcUnavailableError, CompileError) as error:
        print(error, file=sys.stderr)
        return 2
    if not arguments.check:
        committed.write_bytes(compiled)
        print(f"{committed.name}: {len(compiled)} bytes written")
        return 0
    if committed.read_bytes() != compiled:
        print(
            "scrub.ptx is not what scrub.cu compiles to: run python3 -m tests.simgpu.compile_ptx and commit the result",
            file=sys.stderr,
        )
        return 1
    print("scrub.ptx is what scrub.cu compiles to")
    return 0


if __name__ == "__main__":
    sys.exit(main())
