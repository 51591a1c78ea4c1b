"""Attention: decoders that look at a memory, and loops in which the state says what is looked at next.

    keys = memory W_k                                           once
    e_s = score(q, keys_s)                                      for every valid place s of the memory
    a = softmax(e),   context = Σ_s a_s memory_s

    score: additive   v · tanh(q W_q + keys_s)                  Bahdanau; Luong's "concat"
           general    q · keys_s                                Luong
           dot        q · memory_s                              Luong
           location   (q W_q)_s                                 Luong

The memory is a part of the state that never changes, so that beam search and generation have it beside the rest; in
`unroll` it is a constant of the loop.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn import initializers
from jaxrnn.cell import Cell, affine, check_cell, computation_dtype, dot, state_dtype
from jaxrnn.checks import check_choice, check_flags, check_key, check_sizes
from jaxrnn.networks import Residual, Stack
from jaxrnn.rows import Walk, keep
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, State
from jaxrnn.wrapper import Draw, StepWrapper

__all__ = ["Attended", "Attention", "AttentionParams", "AttentionState", "Memory", "recurrent_attention"]


class Memory(NamedTuple):
    """What a decoder looks at."""

    values: Array  # [*batch, S, M]
    keys: Array | None  # [*batch, S, A]; None without `w_k`
    valid: Array  # [*batch, S] bool


class AttentionParams(NamedTuple):
    """Parameters of `Attention`; what an option leaves out is None."""

    cell: Params
    w_q: Array | None  # [O, A], or [O, S] with the score "location"
    w_k: Array | None  # [M, A]
    v: Array | None  # [A]
    w_c: Array | None  # [M + O, O], with the query "after"


class AttentionState(NamedTuple):
    """State of `Attention`."""

    cell: State
    fed: Array  # [*batch, O], what the step before gives: its output, or with the query "after" the attentional one
    memory: Any  # Memory


class Attended(NamedTuple):
    """Output of `Attention`."""

    y: Array  # [*batch, O + M], output and context; with the query "after" [*batch, O], the attentional output
    alignment: Array  # [*batch, S], sums to one, or to zero where no place is valid


@dataclass(frozen=True)
class Attention(StepWrapper):
    """A decoder's cell that attends to a memory; its output is `Attended(y, alignment)`.

        query "before" (Bahdanau)               query "after" (Luong, input feeding)
        context = attend(h)                     h' = cell([x, h̃])
        h' = cell([x, context])                 context = attend(h')
        y = [h', context]                       y = h̃' = tanh([context, h'] W_c)

    Begin with `start`, which puts a memory into the state. What is fed back waits for the step before, so the cell's
    whole input product is in the loop.

    Args:
        cell: a cell of single steps, also in step wrappers such as `Zoneout`, or a `Stack` of such layers without
            dropout, which is stepped as one. O is its `output_size`, and its `input_size` I plus what is fed back: M,
            or O with the query "after".
        memory_size: M.
        memory_steps: S, places of the memory.
        score: "additive", "general", "dot" or "location", as above.
        query: "before" or "after" the cell's step.
        attention_size: A of the score "additive"; None: O.

    Raises:
        ValueError: an unknown option, or sizes that do not fit.

    Example:
        >>> import jaxrnn
        >>> encoder, decoder = jaxrnn.GRU(3, 6), Attention(jaxrnn.GRU(2 + 6, 4), memory_size=6, memory_steps=5)
        >>> keys = jax.random.split(jax.random.key(0))
        >>> encoder_params, params = encoder.init(keys[0]), decoder.init(keys[1])
        >>> lengths = jnp.array([5, 3])
        >>> _, memory = jaxrnn.unroll(encoder, encoder_params, jnp.ones((5, 2, 3)), lengths=lengths)
        >>> state = decoder.start(params, memory, jaxrnn.sequences.mask_from_lengths(lengths, 5))
        >>> state, (ys, alignments) = jaxrnn.unroll(decoder, params, jnp.ones((7, 2, 2)), state)
        >>> ys.shape, alignments.shape, bool((alignments[:, 1, 3:] == 0).all())
        ((7, 2, 10), (7, 2, 5), True)

    Reference: Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and translate";
    Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine translation".
    """

    memory_size: int
    memory_steps: int
    score: Literal["additive", "general", "dot", "location"] = "additive"
    query: Literal["before", "after"] = "before"
    attention_size: int | None = None
    outermost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_cell(self.cell)
        _check_steps(self.cell)
        check_sizes(memory_size=self.memory_size, memory_steps=self.memory_steps)
        check_sizes(**{"cell.output_size": self.cell.output_size})
        check_choice(score=self.score, among=("additive", "general", "dot", "location"))
        check_choice(query=self.query, among=("before", "after"))
        if self.attention_size is not None:
            check_sizes(attention_size=self.attention_size)
            if self.score != "additive":
                raise ValueError(f"attention_size: got {self.attention_size}, the score {self.score!r} has none")
        if self.input_size < 1:
            raise ValueError(
                f"cell: got an input size of {self.cell.input_size}, of which {self._fed} are fed back, needs more"
            )
        if self.score == "dot" and self.memory_size != self.cell.output_size:
            wanted = self.cell.output_size
            raise ValueError(f"memory_size: got {self.memory_size}, the score 'dot' needs that of the output, {wanted}")

    @property
    def _fed(self) -> int:
        return self.memory_size if self.query == "before" else self.cell.output_size

    @property
    def _keys(self) -> int:
        """A: length of a key, where there are keys."""
        return self.attention_size or self.cell.output_size

    @property
    def input_size(self) -> int:
        """I: the cell's without what is fed back."""
        return self.cell.input_size - self._fed

    @property
    def input_spec(self) -> jax.ShapeDtypeStruct:
        """`[I]`."""
        return jax.ShapeDtypeStruct((self.input_size,), jnp.float32)

    @property
    def output_size(self) -> Attended:
        """`Attended(O + M, S)`, or `Attended(O, S)` with the query "after"."""
        y = self.cell.output_size + (self.memory_size if self.query == "before" else 0)
        return Attended(y, self.memory_steps)  # type: ignore[arg-type]

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        attention_init: Initializer = initializers.glorot_uniform(),
        **initializers: Any,
    ) -> AttentionParams:
        """Fresh parameters; `attention_init` for the matrices of the attention, the rest for the cell."""
        kq, kk, kv, kc, key = jax.random.split(key, 5)
        m, o, a = self.memory_size, self.cell.output_size, self._keys
        width = {"additive": a, "location": self.memory_steps}.get(self.score)
        return AttentionParams(
            cell=self.cell.init(key, dtype=dtype, **initializers),
            w_q=None if width is None else attention_init(kq, (o, width), dtype),
            w_k=attention_init(kk, (m, a), dtype) if self.score in ("additive", "general") else None,
            v=attention_init(kv, (a, 1), dtype)[:, 0] if self.score == "additive" else None,
            w_c=attention_init(kc, (m + o, o), dtype) if self.query == "after" else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> AttentionState:
        """The zero state, before an empty memory."""
        places = (*batch_shape, self.memory_steps)
        return AttentionState(
            cell=self.cell.initial_state(batch_shape, dtype),
            fed=jnp.zeros((*batch_shape, self.cell.output_size), dtype),
            memory=Memory(
                jnp.zeros((*places, self.memory_size), dtype),
                jnp.zeros((*places, self._keys), dtype) if self.score in ("additive", "general") else None,
                jnp.zeros(places, bool),
            ),
        )

    def start(
        self, params: AttentionParams, memory: Array, mask: Array | None = None, state: State | None = None
    ) -> AttentionState:
        """The state before the first step.

        Args:
            params: from `init`.
            memory: `[S, *batch, M]`, such as the outputs of an encoder.
            mask: `[S, *batch]` booleans, its valid places; None: all. What the rest holds is of no effect.
            state: of the cell, such as an encoder's last; None: zero.
        """
        shape = jnp.shape(memory)
        if len(shape) < 2 or (shape[0], shape[-1]) != (self.memory_steps, self.memory_size):
            needed = f"[{self.memory_steps}, *batch, {self.memory_size}]"
            raise ValueError(f"memory: got the shape {shape}, needs [S, *batch, M] = {needed}")
        mask = jnp.ones(shape[:-1], bool) if mask is None else check_flags(mask, shape[:-1], "mask", "[S, *batch]")
        dtype = state_dtype(params, memory)
        zero = self.initial_state(shape[1:-1], dtype)
        values = jnp.moveaxis(keep(mask, memory), 0, -2)
        keys = None if params.w_k is None else affine(values, params.w_k, None).astype(dtype)
        found = Memory(values.astype(dtype), keys, jnp.moveaxis(mask, 0, -1))
        return zero._replace(memory=found, cell=zero.cell if state is None else state)

    def project(self, params: AttentionParams, x: Array) -> Array:
        """The input itself: the cell's product waits for what is fed back."""
        return x

    def step_with(
        self, params: AttentionParams, state: AttentionState, drive: Array, draw: Draw
    ) -> tuple[AttentionState, Attended]:
        """One step, the cell's with what it draws itself."""

        def inner(fed: Array) -> tuple[State, Array]:
            z = self.cell.project(params.cell, jnp.concatenate([drive, fed.astype(drive.dtype)], axis=-1))
            cell, output = _advance(draw, self.cell, params.cell, state.cell, z)
            return cell, self.cell.readout(params.cell, output, z)

        if self.query == "before":
            context, alignment = self._attend(params, state.fed, state.memory)
            cell, h = inner(context)
            y = jnp.concatenate([h, context.astype(h.dtype)], axis=-1)
            return AttentionState(cell, h, state.memory), Attended(y, alignment)
        cell, h = inner(state.fed)
        context, alignment = self._attend(params, h, state.memory)
        w_c: Any = params.w_c
        h = jnp.tanh(dot(jnp.concatenate([context.astype(h.dtype), h], axis=-1), w_c))
        return AttentionState(cell, h, state.memory), Attended(h, alignment)

    def readout(self, params: AttentionParams, output: Attended, drive: Array) -> Attended:
        """The output: the next step waits for all of it."""
        return output

    def _attend(self, params: AttentionParams, q: Array, memory: Memory) -> tuple[Array, Array]:
        """The context `[*batch, M]` and the alignment `[*batch, S]`."""
        query = q if params.w_q is None else dot(q, params.w_q)
        keys = memory.values if memory.keys is None else memory.keys
        query = query.astype(keys.dtype)
        if self.score == "additive":
            seen = jnp.tanh(keys + jnp.broadcast_to(query[..., None, :], keys.shape))
            scores = jnp.matmul(seen, params.v.astype(seen.dtype))  # type: ignore[union-attr]
        else:
            scores = query if self.score == "location" else jnp.einsum("...a,...sa->...s", query, keys)
        alignment = jax.nn.softmax(scores, where=memory.valid)
        return jnp.einsum("...s,...sm->...m", alignment, memory.values), alignment

    def walk(
        self, params: AttentionParams, xs: Array, state: AttentionState, how: Walk
    ) -> tuple[AttentionState, Attended]:
        """Step by step, with the memory beside the parameters."""
        final, ys = _Attending(self).walk((params, state.memory), xs, state._replace(memory=()), how)
        return final._replace(memory=state.memory), ys


def _check_steps(cell: Cell) -> None:
    """Raise if `cell` does more over a sequence than its single steps do, such as dropping inputs."""
    if isinstance(cell, Residual):
        _check_steps(cell.cell)
    elif isinstance(cell, Stack) and not cell.dropout:
        for layer in cell.cells:
            _check_steps(layer)
    elif not (cell.stepped or isinstance(cell, StepWrapper)):
        raise ValueError(
            f"cell: got {cell}, which walks a sequence in its own way; Attention needs single steps: those of a cell, "
            "of step wrappers around it, or of a Stack of such layers without dropout"
        )


def _advance(draw: Draw, cell: Cell, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
    """One step of a cell that passes `_check_steps`, with what it draws."""
    if isinstance(cell, StepWrapper):
        return cell.step_with(params, state, drive, draw)
    if isinstance(cell, Residual):
        return _advance(draw, cell.cell, params, state, drive[0])
    if isinstance(cell, Stack):
        return cell.step_by(functools.partial(_advance, draw), params, state, drive)
    return cell.step(params, state, drive)


@dataclass(frozen=True)
class _Attending(StepWrapper):
    """An attention whose memory stands beside its parameters: neither carried by the loop nor saved at every step."""

    cell: Attention
    outermost: ClassVar[bool] = True

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> AttentionState:
        """Without the memory."""
        return self.cell.initial_state(batch_shape, dtype)._replace(memory=())

    def project(self, params: tuple[AttentionParams, Memory], x: Array) -> Array:
        """That of the attention."""
        return self.cell.project(params[0], x)

    def step_with(
        self, params: tuple[AttentionParams, Memory], state: AttentionState, drive: Array, draw: Draw
    ) -> tuple[AttentionState, Attended]:
        """That of the attention."""
        new, output = self.inner_step(params[0], state._replace(memory=params[1]), drive, draw)
        return new._replace(memory=()), output

    def readout(self, params: tuple[AttentionParams, Memory], output: Attended, drive: Array) -> Attended:
        """That of the attention."""
        return self.cell.readout(params[0], output, drive)


class Glimpses(NamedTuple):
    """What `recurrent_attention` gives."""

    state: State  # after the last step
    ys: Array  # [T, *batch, O]
    actions: PyTree  # [T, *batch, ...]


def recurrent_attention(
    cell: Cell,
    params: Params,
    look: Callable[[PyTree], PyTree],
    act: Callable[[Key, Array], PyTree],
    steps: int,
    key: Key,
    state: State,
) -> Glimpses:
    """A loop in which each step looks where the output before says: `a_t = act(y_{t-1})`, `y_t = cell(look(a_t))`.

    The first action is taken from zeros. Actions are constants: no gradient passes through where it was looked, so
    teach `act` by `jaxrnn.reinforce`, with the log probability of `actions` given the outputs before them.

    Args:
        cell: any cell with a single step.
        params: from `cell.init`.
        look: action -> the cell's input `[*batch, ...]`, such as a glimpse of an image.
        act: `(key, y)` -> action, of the output before, `[*batch, O]`.
        steps: T.
        key: split into one key a step before the loop.
        state: before the first step; `cell.initial_state(batch_shape)`.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(2, 4)
        >>> params, state = cell.init(jax.random.key(0)), cell.initial_state((3,))
        >>> act = lambda key, y: y[:, :2] + jax.random.normal(key, (3, 2))
        >>> seen = recurrent_attention(cell, params, lambda a: 2 * a, act, 5, jax.random.key(1), state)
        >>> seen.ys.shape, seen.actions.shape
        ((5, 3, 4), (5, 3, 2))

    Reference: Mnih, Heess, Graves & Kavukcuoglu 2014; Element-Research/rnn, `RecurrentAttention`.
    """
    check_cell(cell)
    check_sizes(steps=steps)
    check_key(key)

    def step(before: tuple[State, Array], key: Key) -> tuple[tuple[State, Array], tuple[Array, PyTree]]:
        state, y = before
        action = jax.tree.map(lax.stop_gradient, act(key, y))
        state, y = cell(params, state, look(action))
        return (state, y), (y, action)

    def first(key: Key, y: Array) -> Array:
        return cell(params, state, look(act(key, y)))[1]

    axes = jax.eval_shape(cell.initial_state)
    batch = jax.tree.leaves(state)[0].ndim - len(jax.tree.leaves(axes)[0].shape)
    shape = (*jax.tree.leaves(state)[0].shape[:batch], cell.output_size)
    nothing = jnp.zeros(shape, computation_dtype(params, state))
    like = jax.eval_shape(first, key, nothing)
    (state, _), (ys, actions) = lax.scan(step, (state, jnp.zeros(like.shape, like.dtype)), jax.random.split(key, steps))
    return Glimpses(state, ys, actions)
