"""Complex numbers in the steps of a run, as kernels do them: by their parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxrnn
from jaxrnn import native
from jaxrnn.engine.parts import NoRule, apart, in_real_numbers, together
from tests.cells import Diagonal
from tests.registry import example

pytestmark = pytest.mark.usefixtures("x64")


def everything(w, z, x):
    """Complex numbers by every rule: `w` is fixed, `z` and `x` are of a step, and `x` is real."""
    y = x.astype(w.dtype)  # without an imaginary part
    u, v = jnp.unstack(jnp.stack(jnp.split(jnp.tile(z, 2), 2)))
    a = jnp.concatenate([u * w, y * v - jnp.conj(y)])[1:6].reshape(5, 1)[:, 0] + jnp.pad(y, 1)
    b = jnp.where(x[0] > 0, jnp.exp(-a / (w[0] + z[0])), y[0] / y[1]) / (1 + y[2])
    c = lax.complex(b.real, z[0].imag + b.real) @ jnp.outer(w, w)[:1].repeat(5, 0) + (y @ w) * (z / jnp.exp(z[::-1]))
    c, d = lax.optimization_barrier((checkpoint_name(c, "c"), lax.stop_gradient(jnp.copy(c))))
    return jnp.stack([jnp.cumsum(c), -c * d]).sum(0), jnp.imag(c * y) + jnp.sum(jnp.tanh(w)).real, y.real


def draws(count):
    return [jnp.array(np.random.default_rng(i).normal(size=(3, 2)) @ [1, 1j]) for i in range(count)]


def in_parts(fun, *args):
    """The program in real numbers, as a function of the same arguments; the first argument is fixed."""
    program, shape = jax.make_jaxpr(lambda *args: apart(fun(*together(args))), return_shape=True)(*apart(args))
    real = in_real_numbers(program, fixed=2)

    def found(*args):
        results = jax.core.eval_jaxpr(real.jaxpr, real.consts, *jax.tree.leaves(apart(args)))
        return together(jax.tree.unflatten(jax.tree.structure(shape), results))

    return real, found


def test_parts_are_those_of_complex_numbers():
    w, z, x = draws(3)
    args = w, z, x.real
    _, found = in_parts(everything, *args)

    def slopes(fun):
        return jax.grad(lambda *args: sum(jnp.sum(jnp.sin(r.real) + r.imag) for r in fun(*args)), (0, 1, 2))(*args)

    for got, want in ((found(*args), everything(*args)), (slopes(found), slopes(everything))):
        for g, v in zip(got, want, strict=True):
            np.testing.assert_allclose(g, v, rtol=1e-12)


def test_what_is_fixed_stays_complex_and_all_else_is_real():
    w, z = draws(2)
    real, _ = in_parts(lambda w, z: jnp.tanh(w) * z, w, z)
    names = {str(e.primitive): e.outvars[0].aval.dtype for e in real.jaxpr.eqns}
    assert (names["tanh"], names["mul"]) == (jnp.complex128, jnp.float64)
    with pytest.raises(NoRule, match="complex numbers in tanh"):
        in_parts(lambda w, z: w * jnp.tanh(z), w, z)


class Stopped(Diagonal):
    """Its state's size has no derivative."""

    def step(self, params, state, drive):
        state, h = super().step(params, state, drive)
        return state, h / (1 + jnp.sum(lax.stop_gradient(h * jnp.conj(h)), -1, keepdims=True))


@pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle() or "none")
@pytest.mark.parametrize("kind", [Diagonal, Stopped])
def test_a_run_with_complex_parameters_is_native(kind):
    """As a scan has it: values and gradients. The cells of the library have complex states alone."""
    cell = kind(3, 4)
    args = example(cell, steps=5, dtype=jnp.float64)
    masks = {"lengths": jnp.array([5, 3]), "resets": jnp.arange(10).reshape(5, 2) % 4 == 2}
    assert jaxrnn.explain(cell, steps=64)[0].path == "native"

    def loss(*args, path):
        state, ys = jaxrnn.unroll(cell, *args, path=path, **masks)
        return jnp.sum(jnp.sin(ys)) + jnp.sum(jnp.sin(state.h.real) * state.h.imag), state

    programs = (
        jax.jit(jax.value_and_grad(functools.partial(loss, path=path), (0, 1, 2), has_aux=True))
        for path in ("native", "scan")
    )
    native_run, scan = (jax.tree.leaves(program(*args)) for program in programs)
    for found, expected in zip(native_run, scan, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


class Squashed(Diagonal):
    """Its state goes through a function of complex numbers that kernels don't know."""

    def step(self, params, state, drive):
        state, h = super().step(params, state, drive)
        return state, jnp.tanh(h)


@pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle() or "none")
def test_a_function_of_complex_numbers_without_a_rule_is_named():
    choice = jaxrnn.explain(Squashed(3, 4), steps=64)[0]
    assert (choice.path, choice.reason) == ("scan", "complex numbers in tanh")
