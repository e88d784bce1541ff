"""The committed PTX is what the committed source compiles to."""

import hashlib
import re

import pytest

from lethe.agents import kernels
from tests.simgpu import compile_ptx
from tests.simgpu.client import KERNELS


def compile_or_skip(source: str) -> bytes:
    try:
        return compile_ptx.compile_ptx(source)
    except compile_ptx.NvrtcUnavailableError as error:
        pytest.skip(str(error))


def test_the_committed_ptx_is_what_the_source_compiles_to() -> None:
    source = (compile_ptx.KERNELS / "scrub.cu").read_text()
    assert compile_or_skip(source) == (compile_ptx.KERNELS / "scrub.ptx").read_bytes()


@pytest.mark.parametrize("statement", ["store_shared(i, 0);", "base[i] = make_uint4(0, 0, 0, 0);", "count += 1;"])
def test_a_kernel_that_lacks_a_statement_is_another_ptx(statement: str) -> None:
    source = (compile_ptx.KERNELS / "scrub.cu").read_text()
    assert statement in source
    assert compile_or_skip(source.replace(statement, ";", 1)) != (compile_ptx.KERNELS / "scrub.ptx").read_bytes()


def test_the_ptx_holds_the_kernels_and_is_old_enough_for_any_cuda_12_driver() -> None:
    text = kernels.load_ptx().decode()
    assert tuple(re.findall(r"\.entry (\w+)", text)) == KERNELS
    assert re.findall(r"^\.(?:version|target) (\S+)", text, re.MULTILINE) == ["8.0", "sm_75"]


def test_the_digest_is_that_of_the_file() -> None:
    committed = (compile_ptx.KERNELS / "scrub.ptx").read_bytes()
    assert kernels.load_ptx() == committed + b"\0"
    assert kernels.ptx_sha256() == hashlib.sha256(committed).hexdigest()
