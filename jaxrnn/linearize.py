"""The derivative of a step with respect to the state, for all steps at once, as a short linear program.

`jax.linearize` gives a linear program for one step: products with known arrays, sums, and structural operations such as
the recurrent product and the split into gates. As it stands it reads every intermediate of the step. Here products of
known arrays are taken before the loop, so that between two structural operations a program is a sum of
coefficient ⊙ tangent, each coefficient one array:

    LSTM:  dc' = k_i ⊙ dz_i + k_f ⊙ dz_f + k_g ⊙ dz_g + f ⊙ dc         k_i = σ'(i) ⊙ g, …
           dh' = k_o ⊙ dz_o + k_c ⊙ dc'

six arrays a step in place of the fourteen that `jax.linearize` keeps.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from jaxrnn.jaxprs import bind, evaluate, flat_products, is_matrix_product
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["linearize"]

Step = Callable[[Params, State, PyTree], PyTree]


def linearize(
    step: Step, params: Params, states: State, drives: PyTree
) -> tuple[list[Array], Callable[[list[Array], State], PyTree]]:
    """The derivative of `step(params, s, d)` with respect to `s` at every `states`, `drives` `[T, ...]`.

    Returns `(coefficients, apply)`: arrays `[T, ...]`, computed for all steps at once, and the linear map
    `apply(coefficients of one step, ds)`. What depends on the parameters alone, the weights, exists once.
    """
    programs = []

    def coefficients(params: Params, s: State, d: PyTree) -> list[Array]:
        _, linear = jax.linearize(lambda s: step(params, s, d), s)
        program = _Program(linear, s)
        programs.append(program)
        return program.coefficients

    first = jax.tree.map(lambda a: a[0], (states, drives))
    jaxpr = jax.make_jaxpr(coefficients)(params, *first).jaxpr
    varies = set(jaxpr.invars[len(jax.tree.leaves(params)) :])
    for eqn in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in varies for v in eqn.invars):
            varies.update(eqn.outvars)
    per_step = [not isinstance(v, Literal) and v in varies for v in jaxpr.outvars]

    def pick(leaves: list[Array], wanted: bool) -> list[Array]:
        return [leaf for leaf, p in zip(leaves, per_step, strict=True) if p == wanted]

    def at_one(params: Params, s: State, d: PyTree) -> list[Array]:
        return pick(coefficients(params, s, d), True)

    stacked = flat_products(jax.vmap(at_one, (None, 0, 0)))(params, states, drives)
    once = pick(coefficients(params, *first), False)
    program = programs[0]

    def apply(at_t: list[Array], ds: State) -> PyTree:
        sources = {True: iter(at_t), False: iter(once)}
        return program([next(sources[p]) for p in per_step], ds)

    return stacked, apply


class _Sum:
    """A linear value, a sum of coefficient ⊙ tangent; `terms` maps a tangent to its coefficient, None for one."""

    def __init__(self, terms: dict[int, Any]) -> None:
        self.terms = terms


class _Program:
    """A linear function as instructions over tangents, and the coefficients they read.

    The tangents are numbered: the function's inputs, then what each instruction `(operation, coefficients, tangents)`,
    the latter two as indices, appends to them.
    """

    def __init__(self, linear: Callable[[State], PyTree], like: State) -> None:
        closed, shape = jax.make_jaxpr(linear, return_shape=True)(like)
        self.tree = jax.tree.structure(shape)
        self.like = jax.tree.leaves(shape)
        self.coefficients: list[Array] = []
        self.instructions: list[tuple[Callable[..., list[Array]], list[int], list[int]]] = []
        self.size = len(closed.jaxpr.invars)
        inputs = [_Sum({i: None}) for i in range(self.size)]
        results = evaluate(closed.jaxpr, closed.consts, inputs, self._equation)
        # A result that does not depend on the tangents is zero.
        self.results = [self._index(r) if isinstance(r, _Sum) else None for r in results]

    def __call__(self, coefficients: list[Array], ds: State) -> PyTree:
        """The linear function at `ds`, with the coefficients of one step."""
        tangents = jax.tree.leaves(ds)
        for operation, known, linear in self.instructions:
            tangents += operation([coefficients[i] for i in known], [tangents[i] for i in linear])
        zeros = (jnp.zeros(a.shape, a.dtype) for a in self.like)
        leaves = [z if i is None else tangents[i] for i, z in zip(self.results, zeros, strict=True)]
        return jax.tree.unflatten(self.tree, leaves)

    def _equation(self, eqn: Any, values: list[Any]) -> list[Any]:
        """What is known is computed, sums are collected, the rest becomes an instruction."""
        name, linear = eqn.primitive.name, [isinstance(v, _Sum) for v in values]
        if not any(linear):
            return bind(eqn, values)
        if name == "mul" and not all(linear):
            return [self._scaled(values[linear.index(True)], values[linear.index(False)])]
        if name == "neg":
            return [self._scaled(values[0], jnp.array(-1, eqn.outvars[0].aval.dtype))]
        if name in ("add", "add_any", "sub") and all(linear):
            terms, more = dict(values[0].terms), values[1]
            if name == "sub":
                more = self._scaled(more, jnp.array(-1, eqn.outvars[0].aval.dtype))
            for i, k in more.terms.items():
                terms[i] = (1 if k is None else k) + (1 if terms[i] is None else terms[i]) if i in terms else k
            return [_Sum(terms)]
        return self._instruct(eqn, values, linear)

    def _scaled(self, value: _Sum, k: Any) -> _Sum:
        if len(value.terms) > 1:
            self._index(value)
        ((i, c),) = value.terms.items()
        return _Sum({i: k if c is None else c * k})

    def _index(self, value: _Sum) -> int:
        """The tangent that `value` is, by an instruction that computes it unless it is one already."""
        if any(k is not None for k in value.terms.values()) or len(value.terms) > 1:
            scaled = [k is not None for k in value.terms.values()]

            def add_up(coefficients: list[Array], tangents: list[Array]) -> list[Array]:
                at = iter(coefficients)
                terms = (t * next(at) if k else t for k, t in zip(scaled, tangents, strict=True))
                return [functools.reduce(jnp.add, terms)]

            known = [self._coefficient(k) for k in value.terms.values() if k is not None]
            value.terms = {self._append(add_up, known, list(value.terms), 1): None}
        return next(iter(value.terms))

    def _instruct(self, eqn: Any, values: list[Any], linear: list[bool]) -> list[Any]:
        """Any other equation, as it stands."""
        if linear == [True, False] and is_matrix_product(eqn):
            # The weight is transposed here, once, so that the transpose of this product, which reverse mode runs at
            # every step, is a plain product; contracting a weight's second axis costs half as much again on the CPU.
            params = eqn.params | {"dimension_numbers": (((eqn.invars[0].aval.ndim - 1,), (1,)), ((), ()))}

            def product(coefficients: list[Array], tangents: list[Array]) -> list[Array]:
                return [lax.dot_general(tangents[0], coefficients[0], **params)]

            known = [self._coefficient(values[1].T)]
            return [_Sum({self._append(product, known, [self._index(values[0])], 1): None})]
        tangents = [self._index(v) for v, is_linear in zip(values, linear, strict=True) if is_linear]
        known = [self._coefficient(v) for v, is_linear in zip(values, linear, strict=True) if not is_linear]

        def operate(coefficients: list[Array], tangents: list[Array]) -> list[Array]:
            sources = {True: iter(tangents), False: iter(coefficients)}
            return bind(eqn, [next(sources[is_linear]) for is_linear in linear])

        first = self._append(operate, known, tangents, len(eqn.outvars))
        return [_Sum({first + i: None}) for i in range(len(eqn.outvars))]

    def _coefficient(self, k: Any) -> int:
        for i, known in enumerate(self.coefficients):
            if known is k:
                return i
        self.coefficients.append(k)
        return len(self.coefficients) - 1

    def _append(self, operation: Any, known: list[int], tangents: list[int], count: int) -> int:
        self.instructions.append((operation, known, tangents))
        self.size += count
        return self.size - count
