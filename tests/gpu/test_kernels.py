"""The scrub's kernels as the GPU runs them, against the same model as those of the simulated driver."""

import pytest

from tests.unit.simgpu.test_kernels import (
    test_fill_writes_the_pattern,
    test_probe_counts_words_and_pages_and_digests_them,
    test_verify_counts_mismatches_and_names_the_first,
    test_zero_and_its_verification,
)

pytestmark = pytest.mark.gpu

__all__ = [
    "test_fill_writes_the_pattern",
    "test_probe_counts_words_and_pages_and_digests_them",
    "test_verify_counts_mismatches_and_names_the_first",
    "test_zero_and_its_verification",
]
