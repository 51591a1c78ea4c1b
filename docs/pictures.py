"""The pictures of docs/sequences.md: what lengths, resets, masks and packing do to running sums.

    python docs/pictures.py         # writes docs/pictures/*.svg

A box is a time step of a row, with its input above its output. An arrow carries the state. What a box says comes from a
run of `unroll`, so the pictures cannot say anything else than the code does; a test compares them.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import sequences

CELL = jaxrnn.Elman(1, 1, activation=jnp.positive)  # h' = x + h
PARAMS = jaxrnn.cells.ElmanParams(w_x=jnp.ones((1, 1)), w_h=jnp.ones((1, 1)), b=jnp.zeros(1))
XS = np.array([[1.0, 2, 3, 4], [10, 20, 30, 40]], np.float32).T[..., None]  # [T, B, 1]
COLORS = ("#dbe9f6", "#fbe3d0", "#dcefdc")


class Row(NamedTuple):
    """What a row of boxes shows, a value for each time step."""

    xs: Sequence[float]
    ys: Sequence[float]
    valid: Sequence[bool]
    sequence: Sequence[int]  # which sequence a step belongs to: its color, and no arrow leads from one into another


def sums(xs: np.ndarray, **options: object) -> np.ndarray:
    """Running sums `[B][T]`."""
    _, ys = jaxrnn.unroll(CELL, PARAMS, jnp.asarray(xs), path="scan", **options)
    return np.asarray(ys)[..., 0].T


def lengths() -> list[Row]:
    given = np.array([4, 2])
    ys, valid = sums(XS, lengths=given), np.arange(4) < given[:, None]
    return [Row(XS[:, b, 0], ys[b], valid[b], [0] * 4) for b in range(2)]


def reverse() -> list[Row]:
    given = np.array([4, 2])
    ys, valid = sums(XS, lengths=given, reverse=True), np.arange(4) < given[:, None]
    return [Row(XS[:, b, 0], ys[b], valid[b], [0] * 4) for b in range(2)]


def resets() -> list[Row]:
    flags = np.zeros((4, 2), bool)
    flags[2, 0] = True
    ys = sums(XS, resets=flags)
    return [Row(XS[:, b, 0], ys[b], [True] * 4, np.cumsum(flags[:, b])) for b in range(2)]


def masked(policy: str) -> list[Row]:
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], bool).T
    cell = jaxrnn.Masked(CELL, policy)
    _, ys = jaxrnn.unroll(cell, PARAMS, (jnp.asarray(XS), jnp.asarray(mask)), path="scan")
    numbers = np.cumsum(~mask, axis=0) if policy == "reset" else np.zeros_like(mask, int)
    return [Row(XS[:, b, 0], np.asarray(ys)[:, b, 0], mask[:, b], numbers[:, b]) for b in range(2)]


def packed() -> list[Row]:
    found = sequences.pack([np.full((n, 1), float(n), np.float32) for n in (2, 4, 1)])
    ys, segments = sums(found.xs, lengths=found.lengths, resets=found.resets), np.asarray(found.segments)
    return [
        Row(np.asarray(found.xs)[:, b, 0], ys[b], segments[:, b] > 0, np.maximum(segments[:, b] - 1, 0))
        for b in range(ys.shape[0])
    ]


PICTURES = {
    "lengths": (lengths, False),
    "reverse": (reverse, True),
    "resets": (resets, False),
    "hold": (lambda: masked("hold"), False),
    "reset": (lambda: masked("reset"), False),
    "packed": (packed, False),
}

WIDE, HIGH, GAP, LEFT = 62, 46, 30, 44


def text(x: float, y: float, words: str, size: int, color: str = "#222", weight: str = "normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" font-weight="{weight}" '
        f'text-anchor="middle">{words}</text>'
    )


def arrows(row: Row, top: float, backward: bool) -> list[str]:
    """From each valid step to the next one that its state reaches, over what is skipped."""
    found, steps = [], [t for t in range(len(row.xs)) if row.valid[t]]
    for a, b in itertools.pairwise(steps):
        if row.sequence[a] != row.sequence[b]:
            continue
        y = top + HIGH / 2
        left, right = LEFT + a * (WIDE + GAP) + WIDE, LEFT + b * (WIDE + GAP)
        start, end = (right - 3, left + 3) if backward else (left + 3, right - 3)
        path = (
            f"M{start} {y:g} H{end}"
            if b == a + 1
            else f"M{start} {y - 8:g} C{start + 14} {top - 22} {end - 14} {top - 22} {end} {y - 8:g}"
        )
        found.append(f'<path d="{path}" fill="none" stroke="#444" stroke-width="1.6" marker-end="url(#tip)"/>')
    return found


def drawn(rows: list[Row], backward: bool) -> str:
    """The SVG of a picture."""
    steps = len(rows[0].xs)
    width, height = LEFT + steps * (WIDE + GAP), 34 + len(rows) * (HIGH + 34)
    body = [
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#444"/></marker>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *(text(LEFT + t * (WIDE + GAP) + WIDE / 2, 16, f"t = {t}", 11, "#777") for t in range(steps)),
    ]
    for b, row in enumerate(rows):
        top = 34 + b * (HIGH + 34)
        body.append(text(LEFT / 2 - 4, top + HIGH / 2 + 4, f"row {b}", 11, "#777"))
        for t in range(steps):
            x, valid = LEFT + t * (WIDE + GAP), bool(row.valid[t])
            fill, line = (COLORS[int(row.sequence[t]) % 3], "") if valid else ("#f4f4f4", ' stroke-dasharray="4 3"')
            body.append(
                f'<rect x="{x}" y="{top}" width="{WIDE}" height="{HIGH}" rx="6" fill="{fill}" stroke="#999"{line}/>'
            )
            body.append(text(x + WIDE / 2, top + 16, f"x = {row.xs[t]:g}" if valid else "skipped", 11, "#666"))
            body.append(text(x + WIDE / 2, top + 36, f"{row.ys[t]:g}", 16, "#222" if valid else "#999", "bold"))
        body += arrows(row, top, backward)
    inside = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif">\n{inside}\n</svg>\n'
    )


def made() -> dict[str, str]:
    """All pictures by name."""
    return {name: drawn(rows(), backward) for name, (rows, backward) in PICTURES.items()}


if __name__ == "__main__":
    folder = Path(__file__).parent / "pictures"
    folder.mkdir(exist_ok=True)
    for name, picture in made().items():
        (folder / f"{name}.svg").write_text(picture)
