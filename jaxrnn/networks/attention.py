"""Attention: decoders that look at a memory.

    keys = memory W_k                                           once
    e_s = score(q, keys_s)                                      for every valid place s of the memory
    a = softmax(e),   context = Σ_s a_s memory_s

    score: additive   v · tanh(q W_q + keys_s)                  Bahdanau; Luong's "concat"
           general    q · keys_s                                Luong
           dot        q · memory_s                              Luong
           location   (q W_q)_s                                 Luong

The memory is a part of the state, so that beam search and generation carry it along. It never changes, and in `unroll`
it is a constant of the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_arrays, check_choice, check_flags, check_initializers, check_sizes
from jaxrnn.engine.layer import Layer, check_layer, computation_dtype, state_dtype
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import affine, cast, dot, keep
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, State

__all__ = ["Attended", "Attention", "AttentionParams", "AttentionState", "Memory"]


class Memory(NamedTuple):
    """What a decoder looks at."""

    values: Array  # [*batch, S, M]
    keys: Array | None  # [*batch, S, A]; None without `w_k`
    valid: Array  # [*batch, S] bool


class AttentionParams(NamedTuple):
    """Parameters of `Attention`; None where an option needs none."""

    cell: Params
    w_q: Array | None  # [O, A], or [O, S] with the score "location"
    w_k: Array | None  # [M, A]
    v: Array | None  # [A]
    w_c: Array | None  # [M + O, O], with the query "after"


class AttentionState(NamedTuple):
    """State of `Attention`."""

    cell: State
    fed: Array  # [*batch, O], output of the last step, or its attentional output with the query "after"
    memory: Any  # Memory


class Attended(NamedTuple):
    """Output of `Attention`."""

    y: Array  # [*batch, O + M], output and context; with the query "after" [*batch, O], the attentional output
    alignment: Array  # [*batch, S], sums to one, or to zero where no place is valid


@dataclass(frozen=True)
class Attention(Wrapper[AttentionParams, AttentionState]):
    """A decoder's cell that attends to a memory; its output is `Attended(y, alignment)`.

        query "before" (Bahdanau)               query "after" (Luong, input feeding)
        context = attend(h)                     h' = cell([x, h̃])
        h' = cell([x, context])                 context = attend(h')
        y = [h', context]                       y = h̃' = tanh([context, h'] W_c)

    Begin with `attend`, which puts a memory into the state. A part of the cell's input is fed back from the step
    before, so its whole input product stays in the loop.

    Args:
        cell: any cell or network that has single time steps, such as a `Stack` with dropout. O is its `output_size`,
            and its `input_size` I plus what is fed back: M, or O with the query "after".
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
        >>> state = decoder.attend(params, memory, jaxrnn.sequences.mask_from_lengths(lengths, 5))
        >>> state, (ys, alignments) = jaxrnn.unroll(decoder, params, jnp.ones((7, 2, 2)), state)
        >>> ys.shape, alignments.shape, bool((alignments[:, 1, 3:] == 0).all())
        ((7, 2, 10), (7, 2, 5), True)

    Reference: Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and translate";
    Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine translation".
    """

    cell: Layer
    memory_size: int
    memory_steps: int
    score: Literal["additive", "general", "dot", "location"] = "additive"
    query: Literal["before", "after"] = "before"
    attention_size: int | None = None

    def __post_init__(self) -> None:
        check_layer(self.cell)
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
    def needs_state(self) -> str:
        """Says that `attend` puts the memory into a state."""
        return "attend(params, memory) puts a memory into one"

    @property
    def input_size(self) -> int:
        """I: the cell's input size without what is fed back."""
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
        """Returns fresh parameters; `attention_init` draws the attention's matrices, `initializers` go to the cell."""
        check_initializers(attention_init=attention_init)
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
        """Returns the zero state with an empty memory."""
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

    def attend(
        self, params: AttentionParams, memory: Array, mask: Array | None = None, state: State | None = None
    ) -> AttentionState:
        """Returns the state before the first step, with the memory in it.

        Args:
            params: from `init`.
            memory: `[S, *batch, M]`, such as the outputs of an encoder.
            mask: `[S, *batch]` booleans, its valid places; None: all. The rest is ignored.
            state: the cell's first state, such as an encoder's last one; None: zero. With the query "before", its
                output is the first query.
        """
        check_arrays(memory=memory)
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
        if state is None:
            return zero._replace(cell=self.cell.restart(params.cell, zero.cell, shape[1:-1]), memory=found)
        fed = jnp.array(self._output_with(state), dtype, copy=True) if self.query == "before" else zero.fed
        return AttentionState(state, fed, found)

    def _output_with(self, state: State) -> Array:
        """Returns the output that belongs to `state`: the state leaf that the cell's step also puts out."""
        params = jax.eval_shape(self.cell.init, jax.random.key(0))
        closed = jax.make_jaxpr(self.cell.advance)(
            params, jax.eval_shape(self.cell.initial_state), jnp.zeros(self.cell.input_size)
        )
        *leaves, y = closed.jaxpr.outvars
        if y not in leaves:
            raise ValueError(
                f"state: got one of {self.cell}, whose output is no part of it, so that the first query is unknown; "
                "leave the state out, or use the query 'after'"
            )
        return jax.tree.leaves(state)[leaves.index(y)]

    def restart(self, params: AttentionParams, state: AttentionState, batch_shape: tuple[int, ...]) -> AttentionState:
        """Returns the state in which the cell begins, before the same memory."""
        cell = self.cell.restart(params.cell, state.cell, batch_shape)
        return AttentionState(cell, jnp.zeros_like(state.fed), state.memory)

    def run(
        self, params: AttentionParams, xs: Array, state: AttentionState, options: Options
    ) -> tuple[AttentionState, Attended]:
        """Runs step by step; the memory stands with the parameters, so the loop neither carries it nor saves it."""
        final, ys = _Attending(self).run((params, state.memory), xs, state._replace(memory=()), options)
        return final._replace(memory=state.memory), ys

    def advance(
        self, params: AttentionParams, state: AttentionState, x: Array, draw: Draw = nothing
    ) -> tuple[AttentionState, Attended]:
        """Runs one time step."""
        dtype = computation_dtype(params, x)

        def inner(fed: Array) -> tuple[State, Array]:
            both = jnp.concatenate([x.astype(dtype), fed.astype(dtype)], axis=-1)
            return self.cell.advance(params.cell, state.cell, both, draw)

        if self.query == "before":
            context, alignment = self._attend(params, state.fed, state.memory)
            cell, h = inner(context)
            fed, y = h, jnp.concatenate([h, context.astype(h.dtype)], axis=-1)
        else:
            cell, h = inner(state.fed)
            context, alignment = self._attend(params, h, state.memory)
            w_c: Any = params.w_c
            fed = y = jnp.tanh(dot(jnp.concatenate([context.astype(h.dtype), h], axis=-1), w_c))
        y = cast(Attended(y, alignment), dtype)
        return AttentionState(cell, fed.astype(state.fed.dtype), state.memory), y

    def with_cells(self, function: Callable[[Layer], Layer]) -> Layer:
        """Returns `function` of itself: its cell runs single time steps."""
        return function(self)

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


@dataclass(frozen=True)
class _Attending(Cell, Wrapper):
    """An `Attention` with the memory among its parameters instead of its state."""

    cell: Attention
    asks: ClassVar[bool] = True
    apart: ClassVar[bool] = False

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> AttentionState:
        """Returns the zero state without a memory."""
        return self.cell.initial_state(batch_shape, dtype)._replace(memory=())

    def restart(
        self, params: tuple[AttentionParams, Memory], state: AttentionState, batch_shape: tuple[int, ...]
    ) -> AttentionState:
        """Returns the state in which the attention begins."""
        return self.cell.restart(params[0], state, batch_shape)

    def project(self, params: tuple[AttentionParams, Memory], x: Array) -> Array:
        """Returns the input itself: the cell's product waits for what is fed back."""
        return x

    def step_with(
        self, params: tuple[AttentionParams, Memory], state: AttentionState, drive: Array, draw: Draw
    ) -> tuple[AttentionState, Attended]:
        """Takes one step of the attention."""
        new, output = self.cell.advance(params[0], state._replace(memory=params[1]), drive, draw)
        return new._replace(memory=()), output

    def step(
        self, params: tuple[AttentionParams, Memory], state: AttentionState, drive: Array
    ) -> tuple[AttentionState, Attended]:
        """Takes one step of the deterministic attention."""
        return self.step_with(params, state, drive, nothing)
