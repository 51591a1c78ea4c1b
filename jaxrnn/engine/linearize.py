"""The derivative of a step with respect to the state, for all steps at once, as a short linear program.

`jax.linearize` gives a linear program for one step: products with known arrays, sums, and structural operations such as
the recurrent product and the split into gates. That program reads every intermediate of the step. This module
multiplies known arrays before the loop. What remains between two structural operations is a sum of
coefficient ⊙ tangent, and each coefficient is one array:

    LSTM:  dc' = k_i ⊙ dz_i + k_f ⊙ dz_f + k_g ⊙ dz_g + f ⊙ dc         k_i = σ'(i) ⊙ g, …
           dh' = k_o ⊙ dz_o + k_c ⊙ dc'

six arrays a step in place of the fourteen that `jax.linearize` keeps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.jaxprs import bind, depends, evaluate, flat_products, interpret, is_matrix_product, sliced
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["linear_program", "linearize"]

Step = Callable[[Params, State, PyTree], PyTree]


def linearize(
    step: Step, params: Params, states: State, drives: PyTree
) -> tuple[list[Array], Callable[[list[Array], State], PyTree]]:
    """Returns the derivative of `step(params, s, d)` with respect to `s` at every `states`, `drives` `[T, ...]`.

    Returns `(coefficients, apply)`: arrays `[T, ...]`, computed for all steps at once, and the linear map
    `apply(coefficients of one step, ds)`. Coefficients that depend only on the parameters are computed once.
    """
    program: Any = None

    def coefficients(params: Params, s: State, d: PyTree) -> list[Array]:
        nonlocal program
        _, linear = jax.linearize(lambda s: step(params, s, d), s)
        program, known = linear_program(linear, s)
        return known

    first = jax.tree.map(lambda a: a[0], (states, drives))
    closed = jax.make_jaxpr(coefficients)(params, *first)
    n, m = len(closed.jaxpr.invars), len(jax.tree.leaves(params))
    per_step = depends(closed, [*[None] * m, *[True] * (n - m)])

    def pick(wanted: bool) -> Callable[[Params, State, PyTree], list[Array]]:
        def some(*args: Any) -> list[Array]:
            known = evaluate(closed, jax.tree.leaves(args), bind)
            return [k for k, p in zip(known, per_step, strict=True) if p == wanted]

        return some

    stacked = flat_products(jax.vmap(pick(True), (None, 0, 0)))(params, states, drives)
    once = pick(False)(params, *first)

    def apply(at_t: list[Array], ds: State) -> PyTree:
        sources = {True: iter(at_t), False: iter(once)}
        return program([next(sources[p]) for p in per_step], ds)

    return stacked, apply


def linear_program(
    linear: Callable[[State], PyTree], like: State
) -> tuple[Callable[[list[Array], State], PyTree], list[Array]]:
    """Returns a linear function as `(program, coefficients)`: `program(coefficients, ds)` is the function at `ds`."""
    closed, shapes = jax.make_jaxpr(linear, return_shape=True)(like)
    compiler = _Compiler(len(closed.jaxpr.invars))
    n = compiler.size
    _, sums = interpret(closed, [None] * n, [_Sum({i: None}) for i in range(n)], compiler.equation)
    # An output that does not depend on the tangents is zero.
    results = [None if total is None else compiler.tangent(total) for total in sums]
    instructions = compiler.instructions

    def program(coefficients: list[Array], ds: State) -> PyTree:
        tangents = jax.tree.leaves(ds)
        for operate, known, at in instructions:
            tangents += operate([coefficients[i] for i in known], [tangents[i] for i in at])
        zeros = (jnp.zeros(a.shape, a.dtype) for a in jax.tree.leaves(shapes))
        leaves = [z if i is None else tangents[i] for i, z in zip(results, zeros, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return program, compiler.coefficients


class _Sum:
    """A linear value, a sum of coefficient ⊙ tangent; `terms` maps a tangent to its coefficient, None for one."""

    def __init__(self, terms: dict[int, Any]) -> None:
        self.terms = terms


class _Instruction(NamedTuple):
    """Computes new tangents: `operate` gets the coefficients and tangents at these indices."""

    operate: Callable[[list[Array], list[Array]], list[Array]]
    coefficients: list[int]
    tangents: list[int]


class _Compiler:
    """Turns the equations of a linear function into instructions; `size` tangents are the function's inputs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.coefficients: list[Array] = []
        self.instructions: list[_Instruction] = []

    def equation(
        self, eqn: Any, values: list[Any], sums: list[_Sum | None]
    ) -> tuple[list[Array | None], list[_Sum | None]]:
        """Computes what is known, collects sums, and makes the rest an instruction.

        An instruction's outputs all count as linear, also one that is in truth known, such as a loop's counter.
        """
        if all(one is None for one in sums):
            return bind(eqn, values), [None] * len(eqn.outvars)
        return [None] * len(eqn.outvars), list(self._linear(eqn, values, sums))

    def _linear(self, eqn: Any, values: list[Any], sums: list[Any]) -> list[_Sum]:
        name, linear = eqn.primitive.name, [one is not None for one in sums]
        one = jnp.ones((), eqn.outvars[0].aval.dtype)
        if name == "mul" and not all(linear):
            return [self._scaled(sums[linear.index(True)], values[linear.index(False)])]
        if name == "neg":
            return [self._scaled(sums[0], -one)]
        if name in ("add", "add_any", "sub") and all(linear):
            terms = dict(sums[0].terms)
            more = self._scaled(sums[1], -one) if name == "sub" else sums[1]
            for i, k in more.terms.items():
                old = terms.get(i)
                terms[i] = k if i not in terms else (one if k is None else k) + (one if old is None else old)
            return [_Sum(terms)]
        if linear == [True, False] and is_matrix_product(eqn):
            return [self._product(eqn, sums[0], values[1])]
        if name == "split":
            return self._slices(eqn, sums[0])
        return self._as_it_stands(eqn, values, sums)

    def tangent(self, value: _Sum) -> int:
        """Returns the index of the tangent that equals `value`, adding an instruction for the sum if there is none."""
        if any(k is not None for k in value.terms.values()) or len(value.terms) > 1:
            scaled = [k is not None for k in value.terms.values()]

            def add_up(coefficients: list[Array], tangents: list[Array]) -> list[Array]:
                at = iter(coefficients)
                terms = (t * next(at) if k else t for k, t in zip(scaled, tangents, strict=True))
                return [functools.reduce(jnp.add, terms)]

            known = [self._coefficient(k) for k in value.terms.values() if k is not None]
            value.terms = {self._append(_Instruction(add_up, known, list(value.terms)), 1): None}
        return next(iter(value.terms))

    def _scaled(self, value: _Sum, k: Array) -> _Sum:
        if len(value.terms) > 1:
            self.tangent(value)
        ((i, c),) = value.terms.items()
        return _Sum({i: k if c is None else c * k})

    def _product(self, eqn: Any, rows: _Sum, matrix: Array) -> _Sum:
        """Multiplies with a weight, `rows @ matrix`, stored transposed.

        The weight is transposed once, here. Reverse mode runs the transpose of this product at every step, which is
        then a plain product. Contracting the second axis of a weight takes 1.5 times as long on the CPU.
        """
        params = eqn.params | {"dimension_numbers": (((eqn.invars[0].aval.ndim - 1,), (1,)), ((), ()))}

        def product(coefficients: list[Array], tangents: list[Array]) -> list[Array]:
            return [lax.dot_general(tangents[0], coefficients[0], **params)]

        instruction = _Instruction(product, [self._coefficient(matrix.T)], [self.tangent(rows)])
        return _Sum({self._append(instruction, 1): None})

    def _slices(self, eqn: Any, value: _Sum) -> list[_Sum]:
        def parts(coefficients: list[Array], tangents: list[Array]) -> list[Array]:
            return sliced(tangents[0], **eqn.params)

        first = self._append(_Instruction(parts, [], [self.tangent(value)]), len(eqn.outvars))
        return [_Sum({first + i: None}) for i in range(len(eqn.outvars))]

    def _as_it_stands(self, eqn: Any, values: list[Any], sums: list[_Sum | None]) -> list[_Sum]:
        linear = [one is not None for one in sums]
        tangents = [self.tangent(one) for one in sums if one is not None]
        known = [self._coefficient(v) for v, is_linear in zip(values, linear, strict=True) if not is_linear]

        def operate(coefficients: list[Array], tangents: list[Array]) -> list[Array]:
            sources = {True: iter(tangents), False: iter(coefficients)}
            return bind(eqn, [next(sources[is_linear]) for is_linear in linear])

        first = self._append(_Instruction(operate, known, tangents), len(eqn.outvars))
        return [_Sum({first + i: None}) for i in range(len(eqn.outvars))]

    def _coefficient(self, k: Array) -> int:
        for i, known in enumerate(self.coefficients):
            if known is k:
                return i
        self.coefficients.append(k)
        return len(self.coefficients) - 1

    def _append(self, instruction: _Instruction, count: int) -> int:
        """Appends an instruction and returns the index of the first of its `count` tangents."""
        self.instructions.append(instruction)
        self.size += count
        return self.size - count
