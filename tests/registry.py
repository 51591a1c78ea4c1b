"""Every cell once, with its options and its float64 reference: the laws of `test_contract.py` run over this list.

A new cell is one line here and one function in `tests/reference/`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    GRU,
    LEM,
    LMU,
    LRU,
    LSTM,
    MDLSTM,
    MDRNN,
    MGU,
    MLSTM,
    MUT,
    QRNN,
    RGLRU,
    S5,
    SCRN,
    SLSTM,
    SRU,
    UGRNN,
    BatchNormLSTM,
    Bidirectional,
    Cell,
    Clockwork,
    ConvGRU,
    ConvLSTM,
    CoRNN,
    DeltaNet,
    Elman,
    Euler,
    GatedLinearAttention,
    Highway,
    HyperLSTM,
    IndRNN,
    LayerNormGRU,
    LayerNormLSTM,
    LearnedState,
    Masked,
    MinGRU,
    MinLSTM,
    ModReLU,
    MuFuRu,
    Multiplicative,
    NestedLSTM,
    OrderedLSTM,
    PhasedLSTM,
    RecurrentDropout,
    Residual,
    Stack,
    VanillaLSTM,
    Window,
    Zoneout,
)
from jaxrnn.cells import GREFF, Projected
from jaxrnn.networks import Antisymmetric, Mirrored, Orthogonal, WeightNorm
from tests import cells, functions, reference
from tests.reference import (
    ablations,
    batch_norm,
    clockwork,
    conv,
    cornn,
    delta,
    grid,
    highway,
    hyper,
    indrnn,
    jozefowicz,
    layer_norm,
    legendre,
    lem,
    mgu,
    mingru,
    mufuru,
    multiplicative,
    nested,
    ordered,
    parametrizations,
    phased,
    qrnn,
    scrn,
    sru,
    state_space,
    wrappers,
    xlstm,
)

T, B = 5, 2


class Entry(NamedTuple):
    """A cell and its reference, `(params, xs, state, **options) -> (state, ys)` over `[T, B, ...]`."""

    cell: Cell
    reference: Callable[..., tuple[Any, np.ndarray]]


def _steps(cell: Cell, step: reference.Step) -> Entry:
    return Entry(cell, functools.partial(reference.unroll, step, cell))


CELLS = [
    _steps(Elman(3, 4), reference.elman),
    _steps(Elman(3, 4, activation=jax.nn.relu), reference.elman),
    _steps(Elman(3, 4, use_bias=False), reference.elman),
    _steps(LSTM(3, 4), reference.lstm),
    _steps(VanillaLSTM(3, 4), ablations.vanilla_lstm),
    _steps(Projected(LSTM(3, 4), 2), reference.projected(reference.lstm)),
    _steps(Projected(VanillaLSTM(3, 4), 2), reference.projected(ablations.vanilla_lstm)),
    _steps(LSTM(3, 4, use_bias=False), reference.lstm),
    _steps(
        LSTM(3, 4, gate_activation=jnp.tanh, candidate_activation=jax.nn.relu, output_activation=jax.nn.sigmoid),
        reference.lstm,
    ),
    _steps(GRU(3, 4), reference.gru_after),
    _steps(GRU(3, 4, use_bias=False), reference.gru_after),
    _steps(GRU(3, 4, gate_activation=jnp.tanh, activation=jax.nn.relu), reference.gru_after),
    _steps(GRU(3, 4, reset="before"), reference.gru_before),
    _steps(GRU(3, 4, reset="before", use_bias=False), reference.gru_before),
    _steps(
        Stack((Elman(3, 4), Projected(LSTM(4, 6), 2), GRU(2, 4)), dropout=0.5),
        reference.stack(reference.elman, reference.projected(reference.lstm), reference.gru_after),
    ),
    _steps(Residual(Projected(LSTM(3, 4), 3)), reference.residual(reference.projected(reference.lstm))),
    _steps(LayerNormLSTM(3, 4), layer_norm.layer_norm_lstm),
    _steps(LayerNormGRU(3, 4), layer_norm.layer_norm_gru),
    _steps(VanillaLSTM(3, 4, **GREFF["FGR"]), ablations.vanilla_lstm),
    _steps(VanillaLSTM(3, 4, **GREFF["CIFG"]), ablations.vanilla_lstm),
    _steps(MinGRU(3, 4), mingru.mingru),
    _steps(MinLSTM(3, 4, scan="associative"), mingru.minlstm),
    _steps(MUT(4, 4, variant=1), jozefowicz.mut),
    _steps(MUT(3, 4, variant=2, project_input=True), jozefowicz.mut),
    _steps(MUT(3, 4, variant=3), jozefowicz.mut),
    _steps(WeightNorm(VanillaLSTM(3, 4)), parametrizations.weight_norm(ablations.vanilla_lstm)),
    _steps(Orthogonal(ModReLU(3, 4)), parametrizations.exp_rnn),
    _steps(Antisymmetric(Euler(3, 4, step_size=0.5)), parametrizations.antisymmetric_rnn),
    _steps(functions.FEEDBACK, functions.feedback_reference),
    _steps(QRNN(3, 4), qrnn.qrnn),
    _steps(
        Stack((Window(3, 2), QRNN(6, 4, pooling="ifo", scan="associative"))),
        reference.stack(qrnn.window, qrnn.qrnn),
    ),
    _steps(
        Projected(VanillaLSTM(3, 4, peephole="full", cell_clip=0.4), 2, nonrecurrent_size=3, clip=0.2),
        reference.projected(ablations.vanilla_lstm),
    ),
    _steps(GRU(3, 4, heads=2), reference.gru_after),
    _steps(LRU(3, 4, scan="associative"), state_space.lru),
    _steps(S5(3, 4), state_space.s5),
    _steps(RGLRU(4, heads=2), state_space.rg_lru),
    _steps(SRU(3, 4), sru.sru),
    _steps(BatchNormLSTM(3, 4, steps=4, epsilon=0.1), batch_norm.batch_norm_lstm),
    _steps(Zoneout(LSTM(3, 4), 0.25), wrappers.zoneout(reference.lstm)),
    _steps(RecurrentDropout(GRU(3, 4), 0.5, tied=False), wrappers.inside(reference.gru_after)),
    _steps(MuFuRu(3, 4), mufuru.mufuru),
    _steps(MuFuRu(3, 4, operations=("keep", "abs_diff", "sqr_diff"), activation=jnp.tanh), mufuru.mufuru),
    _steps(ConvLSTM((4, 3, 2), 2, (3, 2), stride=(2, 1), peephole=True), conv.conv_lstm),
    _steps(ConvGRU((4, 2), 3, 3), conv.conv_gru),
    _steps(MGU(3, 4), mgu.mgu_before),
    _steps(MGU(3, 4, reset="after"), mgu.mgu_after),
    _steps(UGRNN(3, 4), mgu.ugrnn),
    _steps(IndRNN(3, 4), indrnn.indrnn),
    _steps(SCRN(3, 4, context_size=2, adaptive=True), scrn.scrn),
    _steps(SLSTM(3, 4, heads=2), xlstm.slstm),
    _steps(MLSTM(3, 4, heads=2), xlstm.mlstm),
    _steps(DeltaNet(3, 8, heads=2), delta.delta_net),
    _steps(GatedLinearAttention(3, 4, heads=2, rank=2, temperature=2.0), delta.gated_linear_attention),
    _steps(CoRNN(3, 4, step_size=0.3), cornn.cornn),
    _steps(LEM(3, 4, step_size=0.7), lem.lem),
    _steps(Highway(3, 4, depth=2), highway.highway),
    _steps(Clockwork(3, 4, periods=(1, 3)), clockwork.clockwork),
    _steps(PhasedLSTM(3, 4, timed=True, leak=0.1), phased.phased_lstm),
    _steps(OrderedLSTM(3, 4, chunk=2), ordered.ordered_lstm),
    _steps(LMU(3, 4, order=5, theta=6.0), legendre.lmu),
    _steps(Multiplicative(Elman(3, 4)), multiplicative.mrnn),
    _steps(Multiplicative(LSTM(3, 4)), multiplicative.mlstm),
    _steps(NestedLSTM(3, 4), nested.nested_lstm),
    _steps(HyperLSTM(3, 4, hyper_size=2, embedding_size=3), hyper.hyper_lstm),
    _steps(MDLSTM((4, 3), 2), grid.mdlstm),
    _steps(MDLSTM((4, 3), 2, peephole=True, stable=True), grid.mdlstm),
    _steps(Mirrored(MDRNN((3, 2), 4)), grid.mirrored(grid.mdrnn)),
    _steps(MDRNN((6, 2), 3), grid.mdrnn),
    _steps(Masked(LSTM(3, 4), "hold"), wrappers.masked(reference.lstm)),
    _steps(Masked(GRU(3, 4), "reset"), wrappers.masked(reference.gru_after)),
    _steps(LearnedState(GRU(3, 4)), wrappers.learned_state(reference.gru_after)),
    _steps(cells.Counter(3, 4), cells.counter_reference),
    _steps(cells.Token(3, 4), cells.token_reference),
]
"""Cells that can be stepped."""


def _bidirectional(cell: Bidirectional, forward: reference.Step, backward: reference.Step) -> Entry:
    return Entry(cell, functools.partial(reference.bidirectional, forward, backward, cell))


NETWORKS = [
    _bidirectional(Bidirectional(GRU(3, 4), LSTM(3, 4)), reference.gru_after, reference.lstm),
    _bidirectional(Bidirectional(GRU(3, 4), Elman(3, 4), merge="sum"), reference.gru_after, reference.elman),
]
"""Cells that only `unroll` can run."""


TYPICAL = frozenset(
    (
        LSTM(3, 4),
        GRU(3, 4, reset="before"),
        Stack((Elman(3, 4), Projected(LSTM(4, 6), 2), GRU(2, 4)), dropout=0.5),
        LayerNormLSTM(3, 4),
        MinLSTM(3, 4, scan="associative"),
        Orthogonal(ModReLU(3, 4)),
        S5(3, 4),
        BatchNormLSTM(3, 4, steps=4, epsilon=0.1),
        ConvGRU((4, 2), 3, 3),
        MLSTM(3, 4, heads=2),
        OrderedLSTM(3, 4, chunk=2),
        MDRNN((6, 2), 3),
        Masked(GRU(3, 4), "reset"),
        LearnedState(GRU(3, 4)),
        cells.Counter(3, 4),
        cells.Token(3, 4),
        NETWORKS[0].cell,
    )
)
"""Cells of every kind that the engine treats in a way of its own."""


FEW = frozenset(
    (
        LSTM(3, 4),
        GRU(3, 4, reset="before"),
        S5(3, 4),
        cells.Counter(3, 4),
        cells.Token(3, 4),
        NETWORKS[0].cell,
    )
)
"""For a law that is dear even so."""


def expensive(entries: list[Entry], always: frozenset[Any] = TYPICAL) -> Any:
    """The entries for a law that takes seconds a cell: only some `always`, the rest with `-m exhaustive`."""
    rare = pytest.mark.exhaustive
    return [pytest.param(e, id=name(e), marks=() if e.cell in always else rare) for e in entries]


def rare(*cases: Any) -> list[Any]:
    """Further cases of such a law, values of one argument or tuples of those of several: with `-m exhaustive` alone."""
    tuples = (case if isinstance(case, tuple) else (case,) for case in cases)
    return [pytest.param(*case, marks=pytest.mark.exhaustive) for case in tuples]


unrolled = jax.jit(jaxrnn.unroll, static_argnums=0, static_argnames=("reverse", "chunk", "save", "path"))
"""`unroll` as one program: run as it is, every operation in it that is new is compiled alone."""

in_loops = functools.partial(jaxrnn.unroll, path="scan")
"""`unroll` in loops of JAX's, whose contents can be counted."""


def name(entry: Entry) -> str:
    return repr(entry.cell)


def draw(seed: int, tree: Any, dtype: Any, scale: float = 0.5) -> Any:
    """Random values of the shapes of `tree`: reals, and parts of complex numbers, in ±`scale`, integers in 0..2."""
    rng, wide = np.random.default_rng(seed), np.promote_types(dtype, np.float32)

    def real(shape, dtype):
        return rng.uniform(-scale, scale, shape).astype(dtype)

    def one(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            values = rng.integers(0, 3, leaf.shape).astype(leaf.dtype)
        elif leaf.dtype == jnp.bool_:
            values = rng.random(leaf.shape) < 0.7
        elif jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            values = real(leaf.shape, wide) + np.complex64(1j) * real(leaf.shape, wide)
        else:
            values = real(leaf.shape, dtype)
        # NumPy's dtype is already the wanted one: JAX would compile a conversion for every shape.
        return jnp.asarray(values)

    return jax.tree.map(one, tree)


@functools.cache
def _params_spec(cell: Cell) -> Any:
    """Most tests begin with an example, and the trace of an `init` is a long one."""
    return jax.eval_shape(cell.init, jax.random.key(0))


def example(
    cell: Cell, steps: int = T, batch: tuple[int, ...] = (B,), dtype: Any = jnp.float32
) -> tuple[Any, Any, Any]:
    """`(params, xs, state)` without a zero in them, so that a term left out shows."""
    params = _params_spec(cell)
    xs = jax.tree.map(lambda s: jax.ShapeDtypeStruct((steps, *batch, *s.shape), s.dtype), cell.input_spec)
    state = jax.eval_shape(lambda: cell.initial_state(batch))
    return draw(0, params, dtype), draw(1, xs, dtype, 1.0), draw(2, state, dtype, 1.0)
