"""Padmé: lengths that tell little about what is inside.

1. A length of n bits keeps about log2(n) significant bits; the others are zero. The overhead is at most 12 %.
2. Padding is never stored as random bytes that nobody checks: in an index it is zeros inside the sealed plaintext, in a
   data object it is sealed records of zeros (`lethe.formats.layout`).

Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019, section 4.
"""


def padme(length: int) -> int:
    """Return the smallest Padmé length that is not below `length`."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    free_bits = exponent - exponent.bit_length()
    if free_bits <= 0:
        return length
    mask = (1 << free_bits) - 1
    return (length + mask) & ~mask
