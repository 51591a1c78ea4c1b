"""Parametrizations: weights from other parameters, once before the loop."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import jaxrnn
from bench.loops import equations, innermost_loops
from jaxrnn import networks
from tests import reference
from tests.oracles import oracle
from tests.reference import parametrizations
from tests.registry import example, in_loops, rare, unrolled
from tests.test_guards import carried_shapes, gradient

NORMED = networks.WeightNorm(jaxrnn.LSTM(3, 4))
EXP_RNN = networks.Orthogonal(jaxrnn.ModReLU(3, 4))
ANTISYMMETRIC = networks.Antisymmetric(jaxrnn.Euler(3, 4))
ALL = [NORMED, EXP_RNN, ANTISYMMETRIC]


@pytest.mark.usefixtures("x64")
def test_weight_norm_is_that_of_torch():
    """On both matrices of an LSTM: outputs, and the gradients of lengths and directions."""
    torch = oracle("torch")
    params, xs, _ = example(NORMED, dtype=jnp.float64)
    module = torch.nn.LSTM(3, 4, dtype=torch.float64)
    found = {}
    for name, ours in [("weight_ih_l0", "w_x"), ("weight_hh_l0", "w_h")]:
        torch.nn.utils.parametrizations.weight_norm(module, name)
        of = module.parametrizations[name]
        found[ours] = (of.original0, of.original1)
    with torch.no_grad():
        for ours, (g, v) in found.items():
            g.copy_(torch.tensor(np.asarray(getattr(params.g, ours))[:, None]))
            v.copy_(torch.tensor(np.asarray(getattr(params.v, ours)).T))
        module.bias_ih_l0.copy_(torch.tensor(np.asarray(params.v.b)))
        module.bias_hh_l0.zero_()
    theirs, _ = module(torch.tensor(np.asarray(xs)))
    (theirs**2).sum().backward()

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params):
        _, ys = jaxrnn.unroll(NORMED, params, xs)
        return jnp.sum(ys**2), ys

    slopes, ys = run(params)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
    close(ys, theirs.detach().numpy())
    for ours, (g, v) in found.items():
        close(getattr(slopes.g, ours), g.grad.numpy()[:, 0])
        close(getattr(slopes.v, ours), v.grad.numpy().T)


def test_weight_norm_starts_at_the_weights_of_the_cell():
    net = jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.VanillaLSTM(4, 2)))
    normed = networks.WeightNorm(net)
    params, weights = jax.jit(normed.init)(jax.random.key(0)), jax.jit(normed.weights)
    assert jax.tree.structure(params.v) == jax.tree.structure(jax.eval_shape(net.init, jax.random.key(0)))
    assert [g.shape for g in jax.tree.leaves(params.g)] == [(12,), (12,), (8,), (8,)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), weights(params), params.v)
    # Columns have their lengths, whatever the lengths of the directions.
    longer = weights(params._replace(v=jax.tree.map(lambda v: 3 * np.asarray(v), params.v)))
    np.testing.assert_allclose(longer[0].w_h, params.v[0].w_h, rtol=1e-6)
    np.testing.assert_allclose(longer[0].b, 3 * params.v[0].b)


def test_a_column_of_zeros_stays_zero_without_nan():
    cell = networks.WeightNorm(jaxrnn.Elman(3, 4))
    params = jax.jit(functools.partial(cell.init, input_init=jaxrnn.initializers.zeros))(jax.random.key(0))
    slopes = jax.jit(jax.grad(lambda p: jnp.sum(cell.weights(p).w_x)))(params)
    assert not jax.jit(cell.weights)(params).w_x.any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("angles", ["cayley", "henaff"])
@pytest.mark.parametrize("size", [5, *rare(4)])
@pytest.mark.usefixtures("x64")
def test_orthogonal_weights_are_rotations(angles, size):
    """At the start of planes, H odd leaves one direction where it is; and orthogonal whatever the parameters."""
    cell = networks.Orthogonal(jaxrnn.ModReLU(3, size), angles=angles)
    params = jax.jit(functools.partial(cell.init, dtype=jnp.float64))(jax.random.key(0))
    weights = jax.jit(lambda params: cell.weights(params).w_h)
    w = np.asarray(weights(params))
    turned = np.arctan2(w[0, 1], w[0, 0]), np.arctan2(w[2, 3], w[2, 2])
    assert abs(turned[0] - turned[1]) > 1e-3
    low, high = (-1.0, 0.0) if angles == "cayley" else (-np.pi, np.pi)
    assert all(low <= t <= high for t in turned)
    assert np.count_nonzero(np.abs(w) > 1e-12) == 4 * (size // 2) + size % 2
    w = np.asarray(weights(example(cell, dtype=jnp.float64)[0]))
    np.testing.assert_allclose(w @ w.T, np.eye(size), atol=1e-13)
    np.testing.assert_allclose(np.linalg.det(w), 1.0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [np.float64, *rare(np.float32)])
@pytest.mark.usefixtures("x64")
def test_orthogonal_weights_are_those_of_scipy(dtype):
    """Values and gradients, for norms from 0 to some hundreds; what cannot be computed is NaN."""
    cell, rng = networks.Orthogonal(jaxrnn.ModReLU(3, 20)), np.random.default_rng(0)
    above = np.triu_indices(20, 1)
    params = cell.init(jax.random.key(0), dtype=dtype)
    weights = jax.jit(lambda entries: cell.weights(params._replace(w_h=entries)).w_h)
    slopes = jax.jit(lambda entries, out: jax.vjp(weights, entries)[1](out)[0])
    for scale in (0.0, 1e-3, 0.1, 1.0, 30.0):
        a = np.zeros((20, 20))
        a[above] = scale * rng.normal(size=len(above[0]))
        a, out = a - a.T, rng.normal(size=(20, 20))
        found = weights(a[above].astype(dtype))
        # Rounding of the entries alone moves the result by as much.
        near = functools.partial(np.testing.assert_allclose, atol=4 * np.finfo(dtype).eps * (1 + np.linalg.norm(a)))
        assert found.dtype == dtype
        near(found, scipy.linalg.expm(a))
        back = scipy.linalg.expm_frechet(a.T, out, compute_expm=False)
        near(slopes(a[above].astype(dtype), out.astype(dtype)) / 20, (back - back.T)[above] / 20)
    assert np.isnan(weights(np.full(len(above[0]), 1e6, dtype))).all()


@pytest.mark.usefixtures("x64")
def test_antisymmetric_weights_have_imaginary_eigenvalues():
    cell = networks.Antisymmetric(jaxrnn.Euler(3, 5), diffusion=0.1)
    w = jax.jit(lambda key: cell.weights(cell.init(key, dtype=jnp.float64)).w_h)(jax.random.key(0))
    eigenvalues = np.linalg.eigvals(w)
    np.testing.assert_allclose(eigenvalues.real, -0.1, atol=1e-13)
    assert np.abs(eigenvalues.imag).max() > 0.1


@pytest.mark.usefixtures("x64")
def test_an_antisymmetric_network_without_gate_is_that_of_the_equations():
    cell = networks.Antisymmetric(jaxrnn.Euler(3, 4, step_size=0.5, gated=False))
    params, xs, state = example(cell, dtype=jnp.float64)
    _, expected = reference.unroll(parametrizations.antisymmetric_rnn, cell, params, xs, state)
    np.testing.assert_allclose(unrolled(cell, params, xs, state)[1], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        (NORMED, 4 * 4 * (3 + 4 + 1) + 2 * 16),
        (EXP_RNN, 3 * 4 + 6 + 4),
        (ANTISYMMETRIC, 2 * 4 * (3 + 1) + 6),
        (networks.Antisymmetric(jaxrnn.Euler(3, 4, gated=False)), 4 * (3 + 1) + 6),
    ],
    ids=repr,
)
def test_parameters_are_counted(cell, count):
    assert sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0)))) == count


OF_WEIGHTS = {"sqrt", "scatter", "lu", "transpose"}


@pytest.mark.parametrize("cell", ALL, ids=repr)
def test_weights_are_computed_before_the_loop(cell):
    """The loops that carry the state have one product, and nothing of what makes weights, as a single step has."""
    args = example(cell)
    for run in (functools.partial(in_loops, cell), gradient(in_loops, cell)):
        loops = [
            b
            for (_, b), shapes in zip(innermost_loops(run, *args), carried_shapes(run, *args), strict=True)
            if (2, 4) in shapes
        ]
        for body in loops:
            names = [e.primitive.name for e in body]
            assert names.count("dot_general") == 1
            assert not set(names) & OF_WEIGHTS
        assert loops
    stepped = equations(jax.make_jaxpr(cell)(args[0], args[2], args[1][0]).jaxpr)
    assert {e.primitive.name for e in stepped} & OF_WEIGHTS


def test_a_parametrization_of_ones_own():
    @dataclass(frozen=True)
    class Doubled(networks.Parametrized):
        def reparametrize(self, key, params):
            return params._replace(w_h=params.w_h / 2)

        def weights(self, params):
            return params._replace(w_h=params.w_h * 2)

    cell = Doubled(jaxrnn.Elman(3, 4))
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((5, 2, 3))
    twice = params._replace(w_h=2 * params.w_h)
    np.testing.assert_array_equal(unrolled(cell, params, xs)[1], unrolled(cell.cell, twice, xs)[1])


@dataclass(frozen=True)
class Diagonal(jaxrnn.Cell):
    """h' = w h + x."""

    input_size: int
    hidden_size: int

    def init(self, key, *, dtype=jnp.float32):
        return {"w": jnp.ones(self.hidden_size, dtype)}

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return jnp.zeros((*batch_shape, self.hidden_size), dtype)

    def project(self, params, x):
        return x

    def step(self, params, state, drive):
        h = jaxrnn.ops.weigh(state, params["w"]) + drive
        return h, h


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: networks.WeightNorm(3), TypeError, "cell: got int, needs a jaxrnn.Cell"),
        (
            lambda: networks.Orthogonal(jaxrnn.LSTM(3, 4)),
            ValueError,
            r"name: got 'w_h', needs .* square matrix; this is of the shape \(4, 16\)",
        ),
        (
            lambda: networks.Antisymmetric(jaxrnn.Elman(3, 4), "w_o"),
            ValueError,
            "name: got 'w_o', needs .* square matrix; there is none of this name",
        ),
        (
            lambda: networks.Orthogonal(jaxrnn.Elman(3, 4), angles="haar"),
            ValueError,
            "angles: got 'haar', needs one of 'cayley', 'henaff'",
        ),
        (
            lambda: networks.WeightNorm(Diagonal(3, 3)),
            ValueError,
            r"cell: got Diagonal.* parameters of the shapes \[\(3,\)\], needs a matrix",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
