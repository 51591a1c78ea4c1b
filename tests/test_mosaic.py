"""Kernels on the TPU, carried out by JAX on the CPU, against the scan; and lowered for a TPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import jaxrnn
from jaxrnn import GRU, LRU, LSTM, BatchNormLSTM, Clockwork, Elman, RecurrentDropout, Zoneout, mosaic, native
from jaxrnn.engine.machines import MACHINES
from jaxrnn.mosaic.rules import rewritten
from jaxrnn.native import calls
from tests.cells import Token
from tests.registry import CELLS, NETWORKS, example, expensive, rare
from tests.test_operation import both, close, gradients


class Interpreted:
    """The room, with kernels that JAX carries out."""

    Unsupported, sums, shifts = mosaic.Unsupported, mosaic.sums, mosaic.shifts
    trace = staticmethod(mosaic.trace)
    run = staticmethod(functools.partial(mosaic.run, interpret=True))
    fits = slower = staticmethod(lambda row, steps, batch: "")
    slower_call = staticmethod(mosaic.slower_call)
    obstacle = staticmethod(lambda: "")


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setitem(MACHINES, "cpu", Interpreted)


@pytest.fixture
def tpu(monkeypatch):
    """JAX's default device seems to be a TPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")


def masks(steps):
    return {"lengths": jnp.array([steps, 3]), "resets": jnp.arange(steps * 2).reshape(steps, 2) % 4 == 2}


SOME = frozenset((Clockwork(3, 4, periods=(1, 3)),))


@pytest.mark.usefixtures("x64", "interpreted")
@pytest.mark.parametrize("entry", expensive(CELLS + NETWORKS, SOME))
def test_values_and_gradients_are_those_of_the_scan(entry):
    cell, args = entry.cell, example(entry.cell, dtype=jnp.float64)
    if all(choice.path == "scan" for choice in jaxrnn.explain(cell, steps=5, batch=2, dtype=jnp.float64)):
        pytest.skip("no kernel")

    @jax.jit
    def every(*args):
        return [gradients(cell, args, path=path, **masks(5)) for path in ("auto", "scan")]

    close(*every(*args))


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64", "interpreted")
def test_options_change_no_value():
    """Draws for rows and steps, the other direction, states kept alone; two blocks, the second of two steps."""
    cell = RecurrentDropout(Zoneout(GRU(3, 4, heads=2), 0.3), 0.3, share=("time",))
    args = example(cell, steps=18, dtype=jnp.float64)
    options = {"key": jax.random.key(3), "reverse": True, "save": "states", **masks(18)}
    close(*both(lambda *args, path: gradients(cell, args, path=path, **options), *args))


@pytest.mark.usefixtures("x64", "interpreted")
def test_tangents_are_those_of_the_scan():
    cell = Elman(3, 4)
    args = example(cell, dtype=jnp.float64)

    def moved(*args, path):
        """Those of the values, and those of the gradients."""
        directions = jax.tree.map(jnp.cos, args)
        run = functools.partial(jaxrnn.unroll, cell, path=path)
        slopes = jax.grad(lambda *args: jnp.sum(jnp.sin(run(*args)[1])), (0, 1, 2))
        return jax.jvp(run, args, directions), jax.jvp(slopes, args, directions)

    close(*both(moved, *args))


@pytest.mark.parametrize("second", [False, *rare(True)])
def test_a_gradient_is_two_kernels_and_no_loop(second, tpu):
    """As it is lowered for a TPU: every equation of the kernels has code there.

    Its tangents are two more, beside two that compute again what nothing reads, which the compiler takes away.
    """
    cell = LSTM(8, 128)
    args = example(cell, steps=18, dtype=jnp.bfloat16)

    def loss(args):
        return jnp.sum(jaxrnn.unroll(cell, *args, path="native", **masks(18))[1].astype(jnp.float32))

    def tangents(args):
        return jax.jvp(jax.grad(loss), (args,), (args,))

    text = jax.jit(tangents if second else jax.grad(loss)).trace(args).lower(lowering_platforms=("tpu",)).as_text()
    assert (text.count("@tpu_custom_call"), text.count("stablehlo.while")) == (6 if second else 2, 0)


@pytest.mark.parametrize(
    ("kind", "sizes"), [(AxisType.Auto, (4,)), *rare((AxisType.Auto, (2, 2)), (AxisType.Explicit, (4,)))]
)
def test_four_devices_have_two_kernels_each(kind, sizes, tpu):
    """Lowered for four TPUs, rows of the batch apart; on two axes, they were over the first one."""
    cell, n = LSTM(8, 128), len(sizes)
    mesh = AbstractMesh(sizes, ("data", "model")[:n], axis_types=(kind,) * n)

    def at(tree, *spec):
        there = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=there), tree)

    args = jax.eval_shape(cell.init, jax.random.key(0)), jax.ShapeDtypeStruct((4, 8, 8), jnp.float32)
    traced = jax.jit(jax.grad(lambda *args: jnp.sum(jaxrnn.unroll(cell, *args, path="native")[1])))
    text = traced.trace(at(args[0]), at(args[1], None, "data")).lower(lowering_platforms=("tpu",)).as_text()
    assert (text.count("@tpu_custom_call"), text.count("stablehlo.while")) == (2, 0)
    assert text.count("stablehlo.all_reduce") == 3  # one a parameter, which the compiler makes one
    assert "tensor<4x2x512xf32>" in text  # two rows a device


def test_what_vmap_makes_of_a_run_on_an_auto_axis_is_a_scan_and_warns(tpu):
    """Which of its axes is spread is unknown."""
    cell, mesh = Elman(3, 4), AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,))
    params = cell.init(jax.random.key(0))
    many = jax.jit(jax.vmap(lambda xs: jaxrnn.unroll(cell, params, xs, path="native")))
    xs = jax.ShapeDtypeStruct((4, 4, 8, 3), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    with pytest.warns(UserWarning, match="its forward run is a scan, not a native kernel: `jax.vmap` makes more rows"):
        jaxpr = many.trace(xs).jaxpr
    assert "run[" not in str(jaxpr)


def test_what_has_no_kernel_takes_the_scan_and_says_why(tpu):
    def choice(cell, **sizes):
        return jaxrnn.explain(cell, **{"steps": 4, **sizes})[0]

    assert choice(Token(3, 4)) == (Token(3, 4), "native", "")
    assert choice(LRU(3, 4)).path == "native"  # complex numbers, by their parts
    counting = BatchNormLSTM(3, 4, steps=4)  # reads statistics at the place that its state counts
    assert choice(counting).reason.startswith("Mosaic cannot compile it: ")
    assert choice(Elman(3, 4), batch=10**6).reason.endswith("MiB for one step, and kernels keep 96 in VMEM")
    with pytest.raises(ValueError, match=r"path: got 'native', but BatchNormLSTM.* cannot take it: Mosaic"):
        choice(counting, path="native")


def test_a_defect_of_the_kernel_is_no_refusal(tpu, monkeypatch):
    def defect(*args, **options):
        raise KeyError("a defect")

    monkeypatch.setattr(mosaic.calls, "loop", defect)
    with pytest.raises(KeyError, match="a defect"):
        jaxrnn.explain(Elman(3, 17), steps=64)


WITHOUT = {
    "BatchNormLSTM": "Mosaic cannot compile it: ",  # a look-up at a place that its state names
    "MD": "on this device a loop runs over the anti-diagonals",
    "Mirrored": "on this device a loop runs over the anti-diagonals",
    "MLSTM": "it runs many steps at once",
    "DeltaNet": "it runs many steps at once",
    "GatedLinearAttention": "it runs many steps at once",
    "MinLSTM(scan='associative'": "it runs many steps at once",
    "LRU(scan='associative'": "it runs many steps at once",
    "Stack(cells=(Window": "it runs many steps at once",  # below a QRNN(scan="associative")
}
"""How the names of cells begin that have no kernel, and why."""
if jax.__version_info__ < (0, 12):
    WITHOUT["Conv"] = "Mosaic cannot compile it: "


@pytest.mark.parametrize("entry", expensive(CELLS + NETWORKS, frozenset()))
def test_all_others_have_kernels(entry, tpu):
    """As they are lowered for a TPU."""
    reason = next((why for name, why in WITHOUT.items() if repr(entry.cell).startswith(name)), "")
    for choice in jaxrnn.explain(entry.cell, steps=64, batch=16):
        assert choice.path == ("scan" if reason else "native")
        assert choice.reason.startswith(reason)


def test_what_vmap_has_made_too_large_takes_the_scan_and_warns(tpu):
    cell = Elman(3, 4)
    params = cell.init(jax.random.key(0))
    many = jax.vmap(lambda xs: jaxrnn.unroll(cell, params, xs, path="native"))
    traced = jax.jit(many).trace(jax.ShapeDtypeStruct((10**6, 4, 1, 3), jnp.float32))
    with pytest.warns(UserWarning, match="its forward run is a scan, not a native kernel: .* keep 96 in VMEM"):
        assert "stablehlo.while" in traced.lower(lowering_platforms=("tpu",)).as_text()


def test_for_the_cpu_of_its_host_a_run_is_a_scan_and_warns(tpu, monkeypatch):
    monkeypatch.setattr(calls, "obstacle", native.obstacle.__wrapped__)  # it is known once a process
    cell = Elman(3, 4)
    traced = jax.jit(functools.partial(jaxrnn.unroll, cell, path="native")).trace(*example(cell))
    with pytest.warns(UserWarning, match="its forward run is a scan, not a native kernel: .*JAX runs on 'tpu'"):
        text = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "custom_call" not in text
    assert "stablehlo.while" in text


def test_the_step_has_only_what_must_wait():
    """x W and what is no state, such as a second projection, are computed for all steps at once, nothing twice."""
    w = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    h = jax.ShapeDtypeStruct((4,), jnp.float32)

    def fun(w, h, x):
        new, again = (jnp.tanh(h @ w + x @ w) for _ in range(2))
        return new, (new @ w, again), ()

    row = mosaic.trace(fun, w, h, h)
    step = jax.make_jaxpr(row.step)(*row.given, *row.carry, *row.read)
    assert [eqn.primitive.name for eqn in step.eqns] == ["dot_general", "add", "tanh"]
    assert [len(specs) for specs in (row.given, row.carry, row.read, row.out)] == [1, 1, 1, 1]


SIGNED = np.array([-2, -0.0, 0.0, 3, np.nan], np.float32)


def test_rewritten_equations_are_those_of_numpy():
    x = np.concatenate([-np.logspace(2, -9, 50), np.logspace(-9, 1.9, 50)]).astype(np.float32)
    flags = x > 0

    def fun(x, flags):
        weights = jnp.ones((4, 2), jnp.bfloat16)
        rows = lax.broadcast_in_dim(flags, (2, 100), (1,))
        half = jnp.asarray(x[:4], jnp.bfloat16)
        sums = jnp.cumsum(x.reshape(4, 25), 0), lax.cumsum(x, reverse=True)
        return [jnp.expm1(x), *sums, rows, half @ weights, jnp.sign(SIGNED)]

    expm1, down, back, rows, product, signs = rewritten(fun)(x, flags)
    np.testing.assert_allclose(expm1, np.expm1(x.astype(np.float64)), rtol=5e-7)
    np.testing.assert_allclose(down, np.cumsum(x.reshape(4, 25), 0), rtol=1e-6)
    np.testing.assert_allclose(back, np.cumsum(x[::-1].astype(np.float64))[::-1], rtol=1e-6, atol=1e-5)
    assert (np.asarray(rows) == flags).all()
    assert product.dtype == jnp.bfloat16
    np.testing.assert_array_equal(signs, np.sign(SIGNED))
    np.testing.assert_array_equal(np.signbit(signs[:4]), [True, True, False, False])


ELSEWHERE = (lax.acos, lax.asin, lax.atan, lax.atanh, lax.cosh, lax.erfc, lax.sinh)
"""Functions that Mosaic has no code for."""


@pytest.mark.parametrize("function", ELSEWHERE, ids=lambda function: function.__name__)
def test_rewritten_functions_are_those_of_jax(function, x64):
    x = np.concatenate([-np.logspace(1.94, -9, 99), [-1, 0, 1], np.logspace(-9, 1.94, 99), [np.inf, np.nan]])
    x = np.clip(x, -0.999, 0.999) if function in (lax.acos, lax.asin, lax.atanh) else x
    (found,) = rewritten(lambda x: [function(x)])(x.astype(np.float32))
    np.testing.assert_allclose(found, function(x.astype(np.float32).astype(float)), rtol=4e-6, atol=1e-37)


def test_they_and_their_derivatives_have_kernels(tpu):
    h = jax.ShapeDtypeStruct((8,), jnp.float32)

    def function(h, x):
        y = sum((f(jnp.tanh(h) * 0.9) for f in ELSEWHERE), jax.nn.gelu(x, approximate=False))
        return y + jnp.pad(h[:-1], (1, 0)) * jnp.vdot(h, x) + jnp.arange(8.0)

    def fun(_, h, x):
        y, pull = jax.vjp(function, h, x)
        dh, dx = pull(jnp.cos(y))
        return dh, (y, dx), ()

    assert mosaic.fits(mosaic.trace(fun, (), h, h), 8, 16) == ""


def test_a_refusal_without_a_message_tells_its_kind(tpu):
    h = jax.ShapeDtypeStruct((4, 2), jnp.float32)
    slopes = jax.grad(lambda h: jnp.sum(h.prod(1)))
    row = mosaic.trace(lambda _, h, x: (slopes(h) + x, x, ()), (), h, h)
    assert mosaic.fits(row, 8, 16) == "Mosaic cannot compile it: NotImplementedError"


def test_rewritten_pads_and_products_are_those_of_jax():
    x = jnp.arange(24.0).reshape(2, 3, 4)

    def fun(x):
        pads = [lax.pad(x, 7.0, [(0, 0, 0), low_high, (1, 2, 0)]) for low_high in ((-1, 2, 0), (2, -3, 0))]
        products = jnp.einsum("abc,adb->abcd", x, x[:, :, :3]), lax.dot_general(x, x, (((), ()), ((1,), (1,))))
        third = x.astype(jnp.bfloat16) / 3
        products += (jnp.einsum("abc,adb->abcd", third, third[:, :, :3], preferred_element_type=jnp.float32),)
        return [*pads, *products, lax.broadcasted_iota(jnp.float32, (3, 2), 0), jnp.arange(5)]

    for found, expected in zip(rewritten(fun)(x), fun(x), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
