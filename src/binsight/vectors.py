"""What a vector is: a float32 row of unit length. The only normalise, the only score."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from binsight.errors import BadVectors

Vectors: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.float32]

UNIT_TOLERANCE = 1e-3  # | ‖v‖ − 1 |; fp16 and bf16 producers stay below it


def normalise(values: NDArray[Any]) -> Vectors:
    """Rows scaled to unit length.

    values: (n, dim), any real type. Returns float32 (n, dim), C-contiguous.
    Raises BadVectors when the shape is not (n, dim), or a row is zero or not finite.

    >>> normalise(np.array([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    rows = np.asarray(values)
    if rows.ndim != 2 or not (np.issubdtype(rows.dtype, np.floating) or np.issubdtype(rows.dtype, np.integer)):
        raise BadVectors(f"want real numbers of shape (n, dim), got {rows.dtype} {rows.shape}; pass one row as [row]")
    wide = rows.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)  # (n, 1)
        odd = np.flatnonzero(~((lengths > 1e-150) & np.isfinite(lengths))[:, 0])
        if odd.size and rows.shape[1]:  # the squares of very large or small numbers leave the range of float64
            wide[odd] /= np.abs(wide[odd]).max(axis=1, keepdims=True)
            lengths[odd] = np.linalg.norm(wide[odd], axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))[:, 0])
    if bad.size:
        raise BadVectors(f"row {bad[0]} is zero or not finite ({bad.size} such of {len(rows)}); such a row has no direction")
    return np.ascontiguousarray(wide / lengths, dtype=np.float32)


def check(values: NDArray[Any], *, dim: int) -> Vectors:
    """The same rows, once they are known to be float32 (n, dim) of unit length.

    Raises BadVectors, saying what was wanted and what came.
    """
    rows = np.asarray(values)
    if rows.ndim != 2 or rows.dtype != np.float32 or rows.shape[1] != dim:
        raise BadVectors(f"want float32 (n, {dim}) unit rows, got {rows.dtype} {rows.shape}; call vectors.normalise first")
    rows = np.ascontiguousarray(rows)
    squares = np.einsum("ij,ij->i", rows, rows)  # (n,)
    good = np.abs(squares - 1.0) <= 2 * UNIT_TOLERANCE  # (n,); false for NaN too
    if not good.all():
        bad = int(np.argmin(good))
        length = float(squares[bad]) ** 0.5
        raise BadVectors(
            f"want float32 (n, {dim}) unit rows, got length {length:.4g} at row {bad}; call vectors.normalise first"
        )
    return rows


def score(queries: Vectors, rows: Vectors) -> Scores:
    """Cosine of each query with each row, in [−1, 1]; larger is nearer.

    queries: (q, dim) unit rows; rows: (n, dim) unit rows. Returns (q, n).
    """
    scores = queries @ rows.T  # (q, n)
    return np.clip(scores, -1.0, 1.0, out=scores)
