"""Chooses how a run is divided among steps and threads, and whether it pays at all."""

import functools
import math
import os
from typing import NamedTuple

import jax
import numpy as np

from jaxrnn.native.graph import Row
from jaxrnn.native.plan import Plan

__all__ = ["Division", "divide", "slower", "slower_call"]

KIB, MIB = 2**10, 2**20
CHUNK = 256 * KIB  # of a part's values in a chunk: half the cache of a small core
TEAM_WEIGHTS = 512 * KIB  # that a team reads faster than each of its members, if there are few rows
TEAM_ROWS = 4  # for each thread, at most,
TEAM_ROW_WEIGHTS = 350 * KIB  # or one for each so much of the weights, whose reading takes longer than the waiting
MEMBER_WEIGHTS = 20 * KIB  # that take as long to read as a stage's end waits for one more member
TEAM_READS = 2 * MIB  # of a run's weights, at least, or it is over before the team has met
SHARED_WEIGHTS = 8 * MIB  # that no core keeps in a cache of its own
PART_ROWS = 128  # at most: the state and the gates of more leave the cache of a core from step to step
MOST_MOVED = 2048  # numbers that are read one by one; XLA moves those of large arrays together
FEW_UNITS = 2  # that leave most of a vector empty; XLA's vectors go over rows then,
FEW_UNITS_ROWS = 16  # of which there are enough to fill them
WIDE_WEIGHTS = 512 * KIB  # that leave the caches of a core from step to step; every part reads them at each step
ROW_STEPS = {SHARED_WEIGHTS: 32, WIDE_WEIGHTS: 4}  # by weights, most first: packing them takes as long as so many steps
STEP_ROWS = 8  # at least, of a single step: it packs the weights for itself
STEP_PRODUCTS = 2**20  # rows times parameters of a single step that takes longer than a call and the threads' meeting


class Division(NamedTuple):
    """How a run is divided.

    Attributes:
        chunk: steps of a chunk.
        parts: ranges of rows, each run by one thread.
        team: threads that share the columns of every product, of one part.
    """

    chunk: int
    parts: int
    team: int


class _Sizes(NamedTuple):
    """What a division depends on; in bytes, where nothing else is said."""

    weights: int  # all of them
    recurrent: int  # those of the recurrence
    cell: int  # what a chunk keeps for a row and step
    sums: int
    moved: int  # numbers that are read one by one, from listed places
    longest: int  # numbers of a value of the recurrence
    stages: int  # of a step of the recurrence


@functools.lru_cache(maxsize=512)
def _sizes(row: Row) -> _Sizes:
    plan, item = Plan(row), np.dtype(row.dtype).itemsize
    dots = [n for n in plan.nodes if n.op == "dot"]
    matrices, recurrent = {n.attr for n in dots}, {n.attr for n in dots if plan.phase[n] == 1}
    homes = [h for h in plan.homes.values() if h.where == "scratch" and not h.of_step]
    return _Sizes(
        weights=item * sum(m.shape[0] * m.shape[1] for m in matrices),
        recurrent=item * sum(m.shape[0] * m.shape[1] for m in recurrent),
        cell=item * sum(h.size + 8 for h in homes),
        sums=item * sum(spec.size for spec in jax.tree.leaves(row.results[2])) if plan.outers else 0,
        moved=sum(n.size for n in plan.nodes if n.op == "take"),
        longest=max((nest.size for nest in plan.nests if nest.phase == 1), default=1),
        stages=len({nest.stage for nest in plan.nests if nest.phase == 1}) or 1,
    )


@functools.cache
def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slower(row: Row, steps: int, batch: int) -> str:
    """Returns why XLA is faster than a run of this size, "" if it isn't."""
    sizes = _sizes(row)
    if sizes.moved > MOST_MOVED:
        return f"{sizes.moved} numbers that move at every step"
    if sizes.longest <= FEW_UNITS and batch >= FEW_UNITS_ROWS:
        return f"{FEW_UNITS_ROWS} rows or more of {FEW_UNITS} units or fewer"
    least = next((n for size, n in ROW_STEPS.items() if sizes.weights >= size), 1)
    return f"fewer than {least} row steps" if steps * batch < least else ""


def slower_call(batch: int, parameters: int) -> str:
    """Returns why XLA is faster than a run of one step, with so many parameters, "" if it may not be."""
    if batch < STEP_ROWS:
        return f"fewer than {STEP_ROWS} rows"
    return "" if batch * parameters >= STEP_PRODUCTS else f"rows times parameters are fewer than {STEP_PRODUCTS}"


def divide(row: Row, steps: int, batch: int) -> Division:
    """Returns the division of a run.

    Threads with rows of their own never wait for each other, but each reads all weights at every step. A team reads
    them once, and waits for its members at the end of every stage.
    """
    threads, sizes = _threads(), _sizes(row)
    rows = threads * max(TEAM_ROWS, sizes.recurrent // TEAM_ROW_WEIGHTS)
    team = 1
    if (batch <= rows and sizes.recurrent >= TEAM_WEIGHTS) or sizes.recurrent >= SHARED_WEIGHTS:
        team = threads
    elif steps * sizes.recurrent >= TEAM_READS:
        # Each member reads its share of the weights and waits for every other: the sum of both is least.
        members = min(threads, math.isqrt(sizes.recurrent // (sizes.stages * MEMBER_WEIGHTS)))
        team = members if batch <= members else 1
    most = PART_ROWS if sizes.weights < WIDE_WEIGHTS else 2 * PART_ROWS
    parts = 1 if team > 1 else min(batch, threads * -(-batch // (threads * most)))
    rows = -(-batch // parts)
    chunk = CHUNK // (rows * max(sizes.cell, 256))
    if sizes.sums:
        # Every chunk reads and writes the sums once, which takes that many rows to pay.
        chunk = max(chunk, -(-(96 if sizes.sums < 4 * MIB else 384) // rows))
    chunks = -(-steps // max(1, min(chunk, steps)))
    return Division(chunk=-(-steps // chunks), parts=parts, team=team)
