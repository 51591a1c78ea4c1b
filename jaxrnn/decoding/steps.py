"""Steps, prompts, and what all functions of this folder ask of them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxrnn.checks import check_key, check_lengths, check_sizes, structure
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.engine.masks import at, valid_steps
from jaxrnn.networks.attention import Attended
from jaxrnn.typing import Array, Key, Params, PyTree, State

__all__ = ["Prompt", "count_tokens", "make_step", "split_prompt"]

Step = Callable[[State, Array], tuple[State, Array]]


def make_step(
    cell: Layer,
    params: Params,
    *,
    embed: Callable[[Array], PyTree] | None = None,
    head: Callable[[PyTree], Array] | None = None,
) -> Step:
    """Makes the step of a cell or network: `head(cell(params, state, embed(token)))`.

    Args:
        cell: anything that has single time steps, such as a `Stack` or an `Attention`.
        params: from `cell.init`.
        embed: turns tokens `[B]` into the cell's input, as an `nnx.Embed` does; None: the cell takes tokens, as a
            `Stack` above an `Embedding` does.
        head: turns the cell's output into logits `[B, V]`, as an `nnx.Linear` does; None: the output is the logits. Of
            an `Attention` it gets the `y` alone.

    Example:
        >>> import jaxrnn
        >>> from jaxrnn import decoding
        >>> net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
        >>> step = decoding.make_step(net, net.init(jax.random.key(0)))
        >>> state, logits = step(net.initial_state((2,)), jnp.array([0, 6]))
        >>> logits.shape
        (2, 7)
    """
    check_layer(cell)
    for name, function in {"embed": embed, "head": head}.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name}: got {type(function).__name__}, needs a function, such as lambda a: a @ table")
    return Partial(_cell_step, cell, params, with_arrays(embed), with_arrays(head))


def _cell_step(cell: Layer, params: Params, embed: Any, head: Any, state: State, token: Array) -> tuple[State, Array]:
    state, y = cell(params, state, token if embed is None else embed(token))
    if isinstance(y, Attended):
        y = y.y
    return state, y if head is None else head(y)


def with_arrays(function: Any) -> Any:
    """Returns `function` as a pytree of the arrays that it closes over, so that it may be an argument of `jax.jit`."""
    if function is None or not jax.tree_util.all_leaves([function]):
        return function
    if inspect.ismethod(function) and not jax.tree_util.all_leaves([function.__self__]):
        return Partial(function.__func__, function.__self__)
    # What a function closes over may change between two calls, so each call traces it anew.
    return Partial(lambda *args: function(*args))


class Prompt(NamedTuple):
    """A batch of prompts, divided where generation begins."""

    tokens: Array  # [T - 1, B], for `unroll` with `lengths`
    lengths: Array  # [B], one less than before
    last: Array  # [B], each row's last token, for `generate`


def split_prompt(prompt: Array, lengths: Array | None = None) -> Prompt:
    """Divides prompts into what is read before generation begins, and each row's last token.

    Args:
        prompt: `[T, B]` integers, padded at the end.
        lengths: `[B]` integers in 1..T; None: all T.

    Raises:
        TypeError, ValueError: no integers, wrong shapes, or an empty prompt; a text may begin with a symbol of its own.

    Example:
        >>> import jaxrnn
        >>> from jaxrnn import decoding
        >>> net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
        >>> params = net.init(jax.random.key(0))
        >>> prompt = decoding.split_prompt(jnp.array([[1, 2], [3, 4], [5, 0]]), jnp.array([3, 2]))
        >>> prompt.last.tolist(), prompt.lengths.tolist()
        ([5, 4], [2, 1])
        >>> state, _ = jaxrnn.unroll(net, params, prompt.tokens, lengths=prompt.lengths)
        >>> decoding.generate(decoding.make_step(net, params), state, prompt.last, steps=4).tokens.shape
        (4, 2)
    """
    prompt = check_tokens(prompt, "prompt", "[T, B]")
    steps, rows = prompt.shape
    lengths = check_lengths(np.full(rows, steps) if lengths is None else lengths, steps, (rows,))
    if not isinstance(lengths, jax.core.Tracer) and not bool(jnp.all(lengths > 0)):
        raise ValueError(f"lengths: got {lengths.tolist()}, needs one token in each row at least")
    return Prompt(prompt[:-1], lengths - 1, at(prompt, (lengths - 1)[None])[0])


def count_tokens(tokens: Array, vocabulary: int, lengths: Array | None = None) -> Array:
    """Counts each row's tokens: `[T, B]` integers in 0..V-1 to `[B, V]`, for `RepetitionPenalty`.

    Example:
        >>> count_tokens(jnp.array([[1, 0], [1, 2]]), 3, jnp.array([2, 1])).tolist()
        [[0, 2, 0], [1, 0, 0]]
    """
    tokens = check_tokens(tokens, "tokens", "[T, B]")
    check_sizes(vocabulary=vocabulary)
    steps, rows = tokens.shape
    valid = valid_steps(
        jnp.arange(steps), check_lengths(np.full(rows, steps) if lengths is None else lengths, steps, (rows,))
    )
    found = jnp.zeros((rows, vocabulary), jnp.int32)
    return found.at[jnp.broadcast_to(jnp.arange(rows)[None], tokens.shape), tokens].add(valid.astype(jnp.int32))


def check_tokens(tokens: Any, name: str, axes: str) -> Array:
    """Returns `tokens` as int32; raises unless they are integers with these axes."""
    try:
        tokens = jnp.asarray(tokens)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {type(tokens).__name__}, needs integers {axes}") from None
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"{name}: got the dtype {tokens.dtype}, needs integers")
    if tokens.ndim != axes.count(",") + 1 or not tokens.shape[0]:
        raise ValueError(f"{name}: got the shape {tokens.shape}, needs {axes}")
    return tokens.astype(jnp.int32)


def begin(step: Step, state: State, token: Any) -> tuple[Any, State, Array, int]:
    """Returns the checked step, state and token of a generation, and V."""
    token = check_tokens(token, "token", "[B]")
    step, state = with_arrays(step), jax.tree.map(jnp.asarray, state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.shape[:1] != token.shape:
            where = f"state{jax.tree_util.keystr(path)}"
            raise ValueError(f"{where}: got the shape {leaf.shape}, needs [B, ...], B = {len(token)} as in token")
    needs = "needs a function (state, token [B]) -> (state, logits [B, V]), as make_step makes one of a cell"
    if not callable(step):
        raise TypeError(f"step: got {type(step).__name__}, {needs}")
    try:
        result = jax.eval_shape(step, state, token)
    except Exception as error:
        error.add_note(f"Raised within step, which {needs}; a method such as model.step is one of a module")
        raise
    if not (isinstance(result, tuple) and len(result) == 2 and hasattr(result[1], "dtype")):
        raise TypeError(f"step: got {structure(result)} from it, {needs}")
    after, logits = result
    if logits.ndim != 2 or logits.shape[:1] != token.shape:
        raise ValueError(f"step: got logits of the shape {logits.shape}, needs [B, V], B = {len(token)}")
    specs = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (state, after)]
    if specs[0] != specs[1]:
        raise ValueError(f"step: got the state {specs[1]}, needs that before it, {specs[0]}, as shapes and dtypes")
    return step, state, token, logits.shape[1]


def check_stop(stop: tuple[int, ...], vocabulary: int) -> tuple[int, ...]:
    """Returns the stop symbols, each once; raises unless all are tokens."""
    if not isinstance(stop, tuple | list) or not all(
        isinstance(symbol, int | np.integer) and 0 <= symbol < vocabulary for symbol in stop
    ):
        raise ValueError(f"stop: got {stop!r}, needs a tuple of tokens in 0..{vocabulary - 1}")
    return tuple(dict.fromkeys(map(int, stop)))


def is_one_of(token: Array, stop: tuple[int, ...]) -> Array:
    """Returns for each token whether it is a stop symbol."""
    return functools.reduce(jnp.logical_or, (token == symbol for symbol in stop), jnp.zeros(token.shape, bool))


def row_keys(key: Any, rows: int) -> Key | None:
    """Returns one key for each row."""
    if key is None:
        return None
    if getattr(key, "shape", ()) == (rows,) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    key = check_key(key)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(rows))


def wide(logits: Array) -> Array:
    """Returns `logits` in float32 or wider."""
    return logits.astype(np.promote_types(logits.dtype, np.float32))


def draw(logits: Array, keys: Key | None, number: Array) -> Array:
    """Draws token `number` of each row from its logits by its key; the likeliest ones without keys."""
    if keys is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def one(key: Key, logits: Array) -> Array:
        return jax.random.categorical(jax.random.fold_in(key, number), logits)

    return jax.vmap(one)(keys, logits).astype(jnp.int32)
