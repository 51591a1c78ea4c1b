"""Initializers: what each promises, block by block."""

import functools
import inspect
import itertools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import initializers
from tests import registry
from tests.registry import example, unrolled

KEY = jax.random.key(0)


@functools.cache
def start(cell, **options):
    """`cell.init`, in NumPy. Run as it is, it is compiled block by block, once for all cells."""
    return jax.tree.map(np.asarray, cell.init(KEY, **options))


def of_cell(cell):
    """A cell's fresh parameters, and its projection if there is one."""
    params = start(cell)
    return (params.cell, params.w_p) if isinstance(cell, jaxrnn.cells.Projected) else (params, None)


D, H = 300, 200
CELLS = {
    "Elman": (jaxrnn.Elman(D, H), 1),
    "LSTM": (jaxrnn.LSTM(D, H), 4),
    "LSTM projected": (jaxrnn.Projected(jaxrnn.LSTM(D, H), 50), 4),
    "GRU": (jaxrnn.GRU(D, H), 3),
    "GRU before": (jaxrnn.GRU(D, H, reset="before"), 2),
}


@pytest.mark.parametrize(("cell", "n"), CELLS.values(), ids=CELLS)
def test_recurrent_blocks_are_orthogonal_one_by_one(cell, n):
    """And differ from each other; a fused matrix, orthogonal as a whole, would have blocks that are not."""
    params, w_p = of_cell(cell)
    blocks = np.split(params.w_h.astype(np.float64), n, axis=1)
    for block in blocks:
        narrow = block if block.shape[0] >= block.shape[1] else block.T
        np.testing.assert_allclose(narrow.T @ narrow, np.eye(narrow.shape[1]), atol=1e-5)
    assert all(np.abs(a - b).max() > 0.01 for a, b in itertools.pairwise(blocks))
    for other in (getattr(params, "w_n", None), w_p):
        if other is not None:
            np.testing.assert_allclose(other.T @ other, np.eye(other.shape[1]), atol=1e-5)


@pytest.mark.parametrize(("cell", "n"), CELLS.values(), ids=CELLS)
def test_input_blocks_are_lecun_normal_one_by_one(cell, n):
    """Flax's: a normal distribution cut at two deviations and scaled to the variance 1 / I."""
    w = of_cell(cell)[0].w_x
    deviation = D**-0.5
    for block in np.split(w, 2 if n == 1 else w.shape[1] // H, axis=1):
        assert 1.99 * deviation < 0.87962566 * np.abs(block).max() <= 2.0 * deviation
        assert abs(block.mean()) < 4 * deviation / block.size**0.5
        assert abs(block.std() / deviation - 1) < 0.02


@pytest.mark.parametrize(("cell", "n"), CELLS.values(), ids=CELLS)
def test_biases_are_zero_but_the_forget_gate_s(cell, n):
    b = np.array(of_cell(cell)[0].b)
    if n == 4:
        np.testing.assert_array_equal(b[H : 2 * H], 1)
        b[H : 2 * H] = 0
    assert not b.any()


def test_the_forget_bias_is_added():
    params = start(jaxrnn.LSTM(3, 4), bias_init=initializers.uniform(0.5), forget_bias=2.5)
    plain = start(jaxrnn.LSTM(3, 4), bias_init=initializers.uniform(0.5), forget_bias=0.0)
    np.testing.assert_allclose(params.b - plain.b, np.repeat([0, 2.5, 0, 0], 4), atol=1e-6)


def test_lecun_normal_of_each_block():
    w = start(jaxrnn.GRU(D, H), input_init=initializers.lecun_normal()).w_x
    for block in np.split(w, 3, axis=1):
        assert abs(block.std() * D**0.5 - 1) < 0.02


def test_uniform_is_that_of_pytorch():
    """U(±1/√H) for every parameter: bounds, mean and spread."""
    every = initializers.uniform(1 / H**0.5)
    params = start(jaxrnn.GRU(D, H), input_init=every, recurrent_init=every, bias_init=every, recurrent_bias_init=every)
    for leaf in jax.tree.leaves(params):
        assert -1 / H**0.5 <= leaf.min() < -0.9 / H**0.5
        assert 0.9 / H**0.5 < leaf.max() < 1 / H**0.5
        spread = 1 / (3 * H) ** 0.5
        assert abs(leaf.mean()) < 4 * spread / leaf.size**0.5
        assert abs(leaf.std() / spread - 1) < 0.1


def test_the_irnn_starts_as_an_accumulator():
    """Identity recurrence, zero bias: without input it keeps a nonnegative state, with it it adds."""
    cell = jaxrnn.Elman(3, 4, activation=jax.nn.relu)
    params = start(cell, recurrent_init=initializers.identity())
    first = cell.initial_state()._replace(h=jnp.arange(4.0))
    state, _ = unrolled(cell, params, np.zeros((7, 3), np.float32), first)
    np.testing.assert_array_equal(state.h, np.arange(4))
    params = params._replace(w_x=np.abs(params.w_x))
    xs = np.ones((7, 3), np.float32)
    np.testing.assert_allclose(unrolled(cell, params, xs)[0].h, 7 * params.w_x.sum(0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_chrono_spreads_the_times_of_forgetting(kind):
    """A gate with bias b forgets in 1 + e^b steps; those are uniform on [2, max_time)."""
    longest, units = 100.0, 20000
    gates, keeps = {"LSTM": (4, 1), "GRU": (3, 1)}[kind]
    b = np.asarray(jax.jit(lambda key: initializers.chrono(longest)(key, (gates, units), jnp.float32))(KEY))
    times = 1 + np.exp(b[keeps])
    assert times.min() >= 2
    assert times.max() <= longest
    assert abs(times.mean() - (2 + longest) / 2) < 4 * (longest - 2) / (12 * units) ** 0.5
    if kind == "LSTM":
        np.testing.assert_array_equal(b[0], -b[1])
    assert not b[2:].any()
    assert kind == "LSTM" or not b[0].any()


def test_chrono_takes_the_place_of_the_forget_bias():
    b = start(jaxrnn.LSTM(3, 4), bias_init=initializers.chrono(50), forget_bias=0.0).b
    np.testing.assert_array_equal(b[:4], -b[4:8])
    assert (b[4:8] >= 0).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("cell", [jaxrnn.VanillaLSTM(3, 4), jaxrnn.GRU(3, 4), jaxrnn.Elman(3, 4)], ids=repr)
def test_parameters_are_of_the_dtype_asked_for(cell, dtype):
    with jax.enable_x64(True):
        params = jax.eval_shape(functools.partial(cell.init, dtype=dtype), KEY)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("bad", [2, 0.5, float("nan")])
def test_chrono_needs_more_than_two_steps(bad):
    with pytest.raises(ValueError, match=f"max_time: got {bad}, needs a number of steps greater than 2"):
        initializers.chrono(bad)


def test_chrono_needs_gates():
    with pytest.raises(ValueError, match=r"shape: got \(1, 4\), needs \[4, H\] .* or \[3, H\]"):
        jaxrnn.Elman(3, 4).init(KEY, bias_init=initializers.chrono(10))


@pytest.mark.parametrize(
    "name", [name for name in jaxrnn.cells.__all__ if hasattr(getattr(jaxrnn.cells, name), "init")]
)
def test_docstrings_say_the_defaults(name):
    """Beside each initializer, or for all of them in the first paragraph of `init`."""
    init = vars(getattr(jaxrnn.cells, name)).get("init")
    names = [p for p in inspect.signature(init).parameters if p.endswith("_init")] if init else []
    for initializer in names:
        first, *_, last = inspect.cleandoc(init.__doc__).split("Raises:")[0].split("\n\n", 1)
        said = re.search(rf"\n {{4}}{initializer}: (.*?)(?=\n {{4}}\w|\n\n|\Z)", last, flags=re.DOTALL)[1]
        assert "default" in said or "None: " in said or "by default" in first, initializer


# Orthogonal matrices.


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (5, 3), (3, 5), (200, 200), (40, 17), (3, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [jnp.float32, *registry.rare(jnp.float64)])
def test_orthogonal_on_the_shorter_side(shape, dtype):
    with jax.enable_x64(True):
        w = np.asarray(initializers.orthogonal(0.5)(KEY, shape, dtype))
    assert w.shape == shape
    assert w.dtype == dtype
    w = w.reshape(-1, shape[-1]).astype(np.float64)
    w = w if w.shape[0] >= w.shape[1] else w.T
    np.testing.assert_allclose(w.T @ w, 0.25 * np.eye(w.shape[1]), atol=20 * np.finfo(dtype).eps)


def test_orthogonal_is_the_q_of_a_qr_decomposition():
    """Of the normal matrix whose columns, each as the reflections before leave it, are those that were drawn."""
    with jax.enable_x64(True):
        x = np.tril(jax.random.normal(KEY, (23, 20), jnp.float64))
        q = np.asarray(initializers.orthogonal()(KEY, (23, 20), jnp.float64))
    want = np.eye(23)
    for k in range(20):
        v = x[:, k] + np.copysign(np.linalg.norm(x[:, k]), x[k, k]) * np.eye(23)[k]
        want = want @ (np.eye(23) - 2 * np.outer(v, v) / (v @ v))
    np.testing.assert_allclose(q, want[:, :20] * -np.sign(np.diagonal(x)), atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 3), *(pytest.param(s, marks=pytest.mark.exhaustive) for s in ((4, 4), (3, 5)))])
def test_orthogonal_is_uniform(shape):
    """Entries have the moments of a unit vector's in n dimensions, the trace those of a normal number's."""
    draws, n = 20000, max(shape)
    draw = jax.jit(jax.vmap(lambda key: initializers.orthogonal()(key, shape, jnp.float32)))
    w = np.asarray(draw(jax.random.split(KEY, draws)), np.float64)
    noise = 5 / draws**0.5
    np.testing.assert_allclose(w.mean(0), 0, atol=noise)
    np.testing.assert_allclose((w**2).mean(0), 1 / n, atol=noise)
    np.testing.assert_allclose((w**4).mean(0), 3 / (n * (n + 2)), atol=noise)
    if shape == (4, 4):
        trace = np.trace(w, axis1=1, axis2=2)
        np.testing.assert_allclose([trace.mean(), (trace**2).mean(), (trace**4).mean()], [0, 1, 3], atol=10 * noise)
        assert abs((np.linalg.det(w) > 0).mean() - 0.5) < noise


def test_orthogonal_maps_to_what_it_gives_one_by_one():
    keys, init = jax.random.split(KEY, 3), initializers.orthogonal()
    mapped = jax.jit(jax.vmap(lambda key: init(key, (4, 4), jnp.float32)))(keys)
    np.testing.assert_allclose(mapped, np.stack([init(key, (4, 4), jnp.float32) for key in keys]), atol=1e-6)
    assert jax.eval_shape(lambda key: init(key, (4, 3), jnp.bfloat16), KEY).dtype == jnp.bfloat16


def test_orthogonal_within_shard_map():
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    init, keys = initializers.orthogonal(), jax.random.split(KEY, 1)
    spec = jax.sharding.PartitionSpec("i")
    mapped = jax.shard_map(lambda keys: init(keys[0], (40, 40))[None], mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(jax.jit(mapped)(keys)[0], init(keys[0], (40, 40)), atol=1e-6)


def test_orthogonal_needs_two_axes():
    with pytest.raises(ValueError, match=r"shape: got \(4,\), needs \[in, out\]"):
        initializers.orthogonal()(KEY, (4,))


LAPACK = re.compile(r"\b(qr|geqrf|householder_product|lu|cholesky|triangular_solve|eigh?|svd|schur|hessenberg)\b\[")


@pytest.mark.parametrize("entry", registry.expensive(registry.CELLS + registry.NETWORKS))
def test_no_cell_starts_with_lapack(entry):
    """Whose decompositions, batched and several in one program, can wait for each other forever on the CPU."""
    assert not LAPACK.search(str(jax.make_jaxpr(entry.cell.init)(KEY)))


@pytest.mark.parametrize("entry", registry.expensive(registry.CELLS + registry.NETWORKS, registry.FEW))
def test_no_cell_runs_with_lapack(entry):
    args = jax.eval_shape(lambda: example(entry.cell, steps=2))
    run = functools.partial(jaxrnn.unroll, entry.cell, path="scan")
    assert not LAPACK.search(str(jax.make_jaxpr(run)(*args)))


def test_lapack_is_seen():
    assert LAPACK.search(str(jax.make_jaxpr(lambda key: jax.nn.initializers.orthogonal()(key, (4, 4)))(KEY)))
    assert LAPACK.search(str(jax.make_jaxpr(jax.scipy.linalg.expm)(jnp.eye(4))))


@pytest.mark.exhaustive
def test_an_ensemble_starts_in_every_fresh_process():
    program = (
        "import jax, jaxrnn; keys = jax.random.split(jax.random.key(0), 8)\n"
        "for cell in (jaxrnn.GRU(3, 64), jaxrnn.LSTM(3, 64)): jax.block_until_ready(jax.jit(jax.vmap(cell.init))(keys))"
    )
    # What waits or doesn't are its calls of LAPACK, whatever is optimized.
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    runs = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    try:
        assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    finally:
        for run in runs:
            run.kill()
