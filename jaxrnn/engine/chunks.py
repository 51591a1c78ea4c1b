"""Chunks of time steps: their default length, and the loop over them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.engine.noise import Noise
from jaxrnn.engine.options import Save
from jaxrnn.engine.recurrence import STATES
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["StepData", "default_chunk", "even_chunk", "in_chunks"]

_OF_STATES = jax.checkpoint_policies.save_only_these_names(STATES)


def _keeping(segment: Callable[..., Any], save: Save) -> Callable[..., Any]:
    """Returns a segment of which reverse mode keeps what `save` says; a policy of the user's keeps the states, too."""
    if save == "residuals":
        # A policy that saves everything computes products again all the same, and fails at complex numbers.
        return segment
    policy = _OF_STATES
    if save == "boundaries":
        policy = jax.checkpoint_policies.nothing_saveable
    elif callable(save):
        policy = jax.checkpoint_policies.save_from_both_policies(_OF_STATES, save)
    return jax.checkpoint(segment, policy=policy, prevent_cse=False)


class StepData(NamedTuple):
    """What steps get in addition to the state: leaves `[T, ...]`, or without the time axis for one step."""

    drives: PyTree  # from `project`
    valid: Array | None  # [T, *batch], the mask of valid steps; None: all are valid
    resets: Array | None  # [T, *batch], steps before which, in the direction of the run, a row resets; None: none
    noise: Any = Noise()  # what was drawn for the steps


def default_chunk(steps: int, bytes_per_step: int) -> int:
    """Returns a chunk length whose drives fill the cache (CPU) or the cores (elsewhere), a divisor of `steps` if near.

    On the CPU a chunk of 1 MiB also keeps the temporary memory of many programs below 32 MB. Above that, glibc returns
    memory to the system after every call, and the next call pays page faults.
    """
    if not isinstance(bytes_per_step, int):
        return even_chunk(steps, 32)  # of a symbolic batch (`jax.export`): between the bounds
    budget = 2**20 if jax.default_backend() == "cpu" else 2**25
    fit = budget // max(bytes_per_step, 1)
    # Work that is done once for each chunk shows in chunks of one or two steps.
    return even_chunk(steps, min(256, max(4, fit)))


def even_chunk(steps: int, wanted: int) -> int:
    """Returns about `wanted` steps, a divisor of `steps` if one is near, so that no shorter chunk is left over."""
    if not isinstance(steps, int):
        return steps  # a symbolic number cannot be divided
    wanted = min(steps, wanted)
    near = [c for c in range(wanted, wanted // 2, -1) if steps % c == 0]
    near += [c for c in range(wanted, 2 * wanted) if steps % c == 0]
    return near[0] if near else wanted


def in_chunks(
    segment: Any, params: Params, state: State, whole: PyTree, chunk: int, *, reverse: bool = False, save: Save
) -> tuple[State, PyTree]:
    """Runs `segment` over consecutive chunks of the leading axis; the last chunk may be shorter."""
    segment = _keeping(segment, save)
    steps = jax.tree.leaves(whole)[0].shape[0]
    full = steps - steps % chunk
    symbolic = not isinstance(steps, int)
    if symbolic and not isinstance(steps % chunk, int):
        raise ValueError(
            f"chunk: got {chunk}, needs a divisor of the number of steps, {steps}, or None for all at once"
        )
    # Symbolic numbers are equal or not, but which one is less may be unknown.
    if steps == chunk if symbolic else steps <= chunk:
        return segment(params, state, whole)

    def many(state: State, whole: PyTree) -> tuple[State, PyTree]:
        folded = jax.tree.map(lambda x: x.reshape(full // chunk, chunk, *x.shape[1:]), whole)
        state, ys = lax.scan(functools.partial(segment, params), state, folded, reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(full, *y.shape[2:]), ys)

    if full == steps:
        return many(state, whole)
    body, tail = (jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(full), slice(full, None)))
    if reverse:
        state, ys_tail = segment(params, state, tail)
        state, ys_body = many(state, body)
    else:
        state, ys_body = many(state, body)
        state, ys_tail = segment(params, state, tail)
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys_body, ys_tail)
