"""Weights as whole numbers of a few bits: one scale per row of a matrix, one for all of a vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDE = 8
"""Bits per weight of θ0 and of all vectors (biases, norms): few numbers, each of much weight."""
NARROW = 4
"""Bits per weight of a task vector's matrices."""


@dataclass(frozen=True)
class Quantised:
    """One tensor, rounded.

    Arguments:
        codes: whole numbers from −top to top, ``[rows, length]``, int8; top is 2^(bits − 1) − 1.
        scales: what one step of a row is worth, ``[rows]``, float32.
        shape: of the tensor.
        bits: per code.
    """

    codes: np.ndarray
    scales: np.ndarray
    shape: tuple[int, ...]
    bits: int

    def values(self) -> np.ndarray:
        """The tensor again, float32, each entry within half a step of what it was."""
        return (self.codes * self.scales[:, None]).astype(np.float32).reshape(self.shape)

    def packed(self) -> bytes:
        """The codes as bytes, row after row: of four bits two per byte, the first in the low half, 8 standing for 0."""
        if self.bits == WIDE:
            return self.codes.tobytes()
        pairs = (self.codes + 8).astype(np.uint8).reshape(-1, 2)
        return (pairs[:, 0] | pairs[:, 1] << 4).tobytes()


def quantise(tensor: np.ndarray, bits: int) -> Quantised:
    """A tensor rounded to ``bits`` per entry, row by row, so that each row's largest entry keeps its size.

    Arguments:
        tensor: float, of any shape; a matrix has one scale per entry of its first dimension, a vector one in all.
        bits: 4 or 8; 4 asks for rows of even length, as two entries share a byte.

    Raises:
        ValueError: other bits, an odd row of four bits, or an entry that is not finite.
    """
    rows = tensor.reshape(len(tensor) if tensor.ndim > 1 else 1, -1).astype(np.float32)
    if bits not in (NARROW, WIDE):
        raise ValueError(f"weights are packed with {NARROW} or {WIDE} bits, not {bits}")
    if bits == NARROW and rows.shape[1] % 2:
        raise ValueError(f"rows of {rows.shape[1]} entries do not fill bytes with {bits} bits each: use {WIDE}")
    if not np.isfinite(rows).all():
        raise ValueError("a tensor with an entry that is not finite cannot be rounded")
    top = 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(1)
    scales = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(top)
    codes = np.clip(np.rint(rows / scales[:, None]), -top, top).astype(np.int8)
    return Quantised(codes, scales, tensor.shape, bits)
