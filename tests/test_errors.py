"""Bad input at the boundary: each error names the argument, what it got and what it needs."""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    checks,
    convert,
    decoding,
    linen,
    losses,
    metrics,
    nnx,
    ops,
    penalties,
    regularization,
    reinforce,
    sequences,
    states,
)
from tests.cells import Counter, Token
from tests.registry import example

LSTM, GRU, DELTA = jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4), jaxrnn.DeltaNet(3, 4)
PARAMS, XS, STATE = example(LSTM)
WIDER = LSTM.initial_state((7,))
GRU_ABOVE = jaxrnn.GRU(4, 4)
DECODER = jaxrnn.Attention(jaxrnn.GRU(3 + 5, 4), memory_size=5, memory_steps=6)


class Undecorated(jaxrnn.Cell):
    input_size, hidden_size = 3, 4
    init, initial_state, project, step = LSTM.init, LSTM.initial_state, LSTM.project, LSTM.step


def stepping(step):
    """A GRU with another step."""

    @dataclasses.dataclass(frozen=True)
    class Custom(jaxrnn.networks.StepWrapper):
        def step_with(self, params, state, drive, draw):
            return step(state)

    cell = Custom(GRU)
    return cell, *example(cell)


def run(cell=LSTM, params=PARAMS, xs=XS, state=STATE, **options):
    return jaxrnn.unroll(cell, params, xs, state, **options)


BAD_CALLS = {
    "no cell": (lambda: run(cell=jnp.tanh), TypeError, "cell: got .*needs a jaxrnn.Cell"),
    "a class": (lambda: run(cell=jaxrnn.LSTM), TypeError, "cell: got .*needs a jaxrnn.Cell"),
    "last axis": (
        lambda: run(xs=jnp.ones((5, 2, 4))),
        ValueError,
        r"xs: got the shape \(5, 2, 4\), .*\[T, \*batch, 3\]",
    ),
    "no time": (lambda: run(xs=jnp.ones(3)), ValueError, r"xs: got the shape \(3,\), .* needs \[T, \*batch, 3\]"),
    "a number": (lambda: run(xs=1.0), ValueError, r"xs: got the shape \(\), .* needs \[T, \*batch, 3\]"),
    "integers": (
        lambda: run(xs=jnp.ones((5, 2, 3), int)),
        TypeError,
        r"xs: got the dtype int32, .* needs real values; astype\(float\) makes them",
    ),
    "a pytree": (lambda: run(xs={"x": XS}), TypeError, r"xs: got the structure \{'x': \*\}, .* needs \*"),
    "other params": (
        lambda: run(params=GRU.init(jax.random.key(0))),
        TypeError,
        r"params: got the structure .*GRUParams.*needs .*LSTMParams.*as from LSTM.*init\(key\)",
    ),
    "params of a Flax module": (
        lambda: run(params=nnx.RNN(LSTM, params=PARAMS).cell.params),
        TypeError,
        r"params: got the structure LSTMParams\(w_x=Param\(\*\), w_h=Param\(\*\), b=Param\(\*\)\), needs "
        r"LSTMParams\(w_x, w_h, b\), as from LSTM.*; flax\.nnx\.as_pure\(params\) takes the arrays out",
    ),
    "a Flax state": (
        lambda: run(params=flax.nnx.state(nnx.RNN(LSTM, params=PARAMS))),
        TypeError,
        r"params: got the structure State\(.*; flax\.nnx\.as_pure\(params\) takes the arrays",
    ),
    "one for all that a file may name": (
        lambda: convert.to_safetensors(LSTM, PARAMS, "", known=Counter),
        TypeError,
        "known: got Counter, needs a tuple of classes and functions",
    ),
    "params of another size": (
        lambda: run(params=jaxrnn.LSTM(3, 5).init(jax.random.key(0))),
        ValueError,
        r"params\.w_x: got the shape \(3, 20\), needs \(3, 16\), as from LSTM.*init\(key\)",
    ),
    "params without bias": (
        lambda: run(params=PARAMS._replace(b=None)),
        TypeError,
        "params: got the structure .*needs .*as from LSTM",
    ),
    "another state": (
        lambda: run(state=GRU.initial_state((2,))),
        TypeError,
        r"state: got the structure .*GRUState.*needs .*LSTMState.*initial_state\(\(2,\)\)",
    ),
    "a tuple for a state": (
        lambda: run(state=tuple(STATE)),
        TypeError,
        r"state: got the structure \(\*, \*\), needs LSTMState\(h, c\), as from",
    ),
    "floats that end episodes": (
        lambda: run(resets=jnp.zeros((5, 2))),
        TypeError,
        r"resets: got the dtype float32, needs booleans; resets\.astype\(bool\) makes them",
    ),
    "a decoder without a memory": (
        lambda: run(jaxrnn.Stack((DECODER,)), *example(jaxrnn.Stack((DECODER,)))[:2], None),
        ValueError,
        r"state: got None, Stack.*Attention.* needs one: attend\(params, memory\) puts a memory into one",
    ),
    "state of another batch": (
        lambda: run(state=WIDER),
        ValueError,
        r"state\.h: got the shape \(7, 4\), needs \(2, 4\), as from LSTM.*initial_state\(\(2,\)\)",
    ),
    "state without batch": (
        lambda: run(state=LSTM.initial_state()),
        ValueError,
        r"state\.h: got the shape \(4,\), needs \(2, 4\)",
    ),
    "negative lengths": (
        lambda: run(lengths=np.array([-1, 2])),
        ValueError,
        "lengths: got values from -1 to 2, needs 0 to T = 5",
    ),
    "a list of lengths": (
        lambda: run(lengths=[1, 6]),
        ValueError,
        "lengths: got values from 1 to 6, needs 0 to T = 5",
    ),
    "too long lengths": (
        lambda: run(lengths=jnp.array([1, 6])),
        ValueError,
        "lengths: got values from 1 to 6, needs 0 to T = 5",
    ),
    "lengths of another batch": (
        lambda: run(lengths=jnp.array([1, 2, 3])),
        ValueError,
        r"lengths: got the shape \(3,\), needs \[\*batch\] = \(2,\)",
    ),
    "lengths of inputs that are batch-major": (
        lambda: run(xs=XS.swapaxes(0, 1), state=None, lengths=jnp.array([5, 3])),
        ValueError,
        r"lengths: got the shape \(2,\), needs \[\*batch\] = \(5,\); time and batch seem to be swapped",
    ),
    "one length for all": (
        lambda: run(lengths=3),
        ValueError,
        r"lengths: got the shape \(\), needs \[\*batch\] = \(2,\)",
    ),
    "real lengths": (
        lambda: run(lengths=jnp.array([1.0, 2.0])),
        TypeError,
        r"lengths: got the dtype float32, needs integers; lengths\.astype\(int\) makes them",
    ),
    "a mask for lengths": (
        lambda: run(lengths=jnp.ones((2,), bool)),
        TypeError,
        r"lengths: got the dtype bool, needs integers; sequences\.lengths_from_mask\(mask\) makes them",
    ),
    "resets of batch first": (
        lambda: run(resets=jnp.zeros((2, 5), bool)),
        ValueError,
        r"resets: got the shape \(2, 5\), needs \[T, \*batch\] = \(5, 2\)",
    ),
    "integer resets": (
        lambda: run(resets=jnp.zeros((5, 2), int)),
        TypeError,
        "resets: got the dtype int32, needs booleans",
    ),
    "integers for a state": (
        lambda: run(state=jaxrnn.cells.LSTMState(*(jnp.zeros((2, 4), int),) * 2)),
        TypeError,
        r"state\.h: got the dtype int32, needs real values, as from LSTM",
    ),
    "complex numbers for a real state": (
        lambda: run(state=jaxrnn.cells.LSTMState(*(jnp.zeros((2, 4), complex),) * 2)),
        TypeError,
        r"state\.h: got the dtype complex64, needs real values",
    ),
    "several keys": (
        lambda: run(key=jax.random.split(jax.random.key(0))),
        ValueError,
        r"key: got keys of the shape \(2,\), needs a key",
    ),
    "lengths for a mask": (
        lambda: sequences.last_output(XS, jnp.array([5, 3])),
        TypeError,
        r"mask: got the dtype int32, needs booleans \[T, \*batch\] = \(5, 2\)",
    ),
    "rates without their state": (
        lambda: jaxrnn.Zoneout(LSTM, (0.1, 0.2)),
        ValueError,
        r"rate: got \(0.1, 0.2\), needs a number, or LSTMState\(h, c\) of numbers",
    ),
    "an integer for a key": (lambda: run(key=0), TypeError, "key: got 0, needs a key"),
    "no key for noise": (
        lambda: jaxrnn.states.noisy_state(None, 0.1, LSTM.initial_state()),
        TypeError,
        r"key: got None, needs a key, jax.random.key\(seed\)$",
    ),
    "no key for samples": (
        lambda: jaxrnn.regularization.monte_carlo(None, lambda key: key, 3),
        TypeError,
        "key: got None, needs a key",
    ),
    "an array for a direction": (
        lambda: run(reverse=jnp.array(True)),
        TypeError,
        r"reverse: got Array\(True, dtype=bool\), needs a bool",
    ),
    "a cell for a tuple of cells": (lambda: jaxrnn.Stack(LSTM), TypeError, "cells: got LSTM, needs a tuple"),
    "a number for a cell": (lambda: jaxrnn.Stack((3,)), TypeError, r"cells\[0\]: got int, needs a jaxrnn.Cell"),
    "a residual number": (lambda: jaxrnn.Residual(3), TypeError, "cell: got int, needs a jaxrnn.Cell"),
    "a backward number": (lambda: jaxrnn.Bidirectional(LSTM, 3), TypeError, "backward: got int, needs a jaxrnn.Cell"),
    "unknown save": (
        lambda: run(save="all"),
        ValueError,
        "save: got 'all', needs one of 'auto', 'states', 'boundaries', 'residuals'",
    ),
    "no chunk": (lambda: run(chunk=0), ValueError, "chunk: got 0, needs a positive integer"),
    "negative chunk": (lambda: run(chunk=-2), ValueError, "chunk: got -2, needs a positive integer"),
    "half a chunk": (lambda: run(chunk=2.5), ValueError, "chunk: got 2.5, needs a positive integer"),
    "a flag for a chunk": (lambda: run(chunk=True), ValueError, "chunk: got True, needs a positive integer"),
    "step: last axis": (
        lambda: LSTM(PARAMS, STATE, jnp.ones((2, 4))),
        ValueError,
        r"x: got the shape \(2, 4\), .*\[\*batch, 3\]",
    ),
    "step: real resets": (
        lambda: LSTM(PARAMS, STATE, XS[0], reset=jnp.zeros(2)),
        TypeError,
        r"reset: got the dtype float32, needs booleans; reset\.astype\(bool\) makes them",
    ),
    "step: resets of another batch": (
        lambda: LSTM(PARAMS, STATE, XS[0], reset=jnp.zeros(3, bool)),
        ValueError,
        r"reset: got the shape \(3,\), needs \[\*batch\] = \(2,\)",
    ),
    "step: integers": (lambda: LSTM(PARAMS, STATE, jnp.ones((2, 3), int)), TypeError, "x: got the dtype int32"),
    "step: batch of the state": (
        lambda: LSTM(PARAMS, WIDER, XS[0]),
        ValueError,
        r"state\.h: got the shape \(7, 4\), needs \(2, 4\)",
    ),
    "step: a sequence": (
        lambda: LSTM(PARAMS, STATE, XS),
        ValueError,
        r"state\.h: got the shape \(2, 4\), needs .*a call is one time step, unroll runs a sequence",
    ),
    "step: arguments exchanged": (
        lambda: LSTM(STATE, PARAMS, XS[0]),
        TypeError,
        "params: got the structure .*LSTMState",
    ),
    "tokens that are real": (
        lambda: jaxrnn.unroll(Token(3, 4), example(Token(3, 4))[0], jnp.ones((5, 2))),
        TypeError,
        "xs: got the dtype float32, .* needs integer values",
    ),
    "no dataclass": (lambda: run(cell=Undecorated()), TypeError, "cell: Undecorated is no dataclass, needs @dataclass"),
    "no dataclass, called": (
        lambda: Undecorated()(PARAMS, STATE, XS[0]),
        TypeError,
        "cell: Undecorated is no dataclass",
    ),
    "an output without batch axes": (
        lambda: run(*stepping(lambda state: (state, state.h.mean()))),
        ValueError,
        r"step, readout: output: got the shape \(\) from Custom\(.*needs \[\*batch, \.\.\.\]",
    ),
    "a step without output": (
        lambda: run(*stepping(lambda state: state)),
        TypeError,
        r"step: got GRUState from Custom\(.*needs a pair \(state, output\)",
    ),
    "a step to another structure": (
        lambda: run(*stepping(lambda state: (state.h, state.h))),
        TypeError,
        r"step: state: got the structure .*\*.*needs .*GRUState.*from Custom\(",
    ),
    "a step to another shape": (
        lambda: run(*stepping(lambda state: (state._replace(h=state.h[:, :2]), state.h))),
        ValueError,
        r"step: state\.h: got the shape \(2, 2\), needs \(2, 4\), as before it, from Custom\(",
    ),
    "an unknown number of steps at once": (
        lambda: jax.eval_shape(
            functools.partial(jaxrnn.unroll, DELTA),
            example(DELTA)[0],
            jax.ShapeDtypeStruct(jax.export.symbolic_shape("t, 2, 3"), jnp.float32),
        ),
        ValueError,
        "xs: got t steps, .* needs a number that is known",
    ),
    "leaves of different batch": (
        lambda: jaxrnn.unroll(
            Counter(3, 4), example(Counter(3, 4))[0], {"x": jnp.ones((5, 2, 3)), "gain": jnp.ones((5, 3))}
        ),
        ValueError,
        r"xs: got leaves of different leading axes \[\(5, 2\), \(5, 3\)\]",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Tensor:
    """An array of another library, as a check sees it."""

    shape, dtype, ndim = (5, 2, 3), "torch.float32", 3

    def __array__(self, dtype=None, copy=None):
        return np.ones(self.shape, dtype)


Tensor.__module__ = "torch"
KEY, ONES, TABLE = jax.random.key(0), jnp.ones((5, 2, 3)), losses.alias_table(np.full(3, 1 / 3))
PACKED = sequences.pack([np.ones((2, 3)), np.ones((5, 3))])
MEMORY = example(DECODER)[0]
TAKES_ARRAYS = {
    "xs": [
        lambda a: run(xs=a),
        sequences.mask_from_zeros,
        sequences.reverse_sequence,
        lambda a: nnx.RNN(LSTM, params=PARAMS)(a),
        lambda a: nnx.RNN(LSTM, params=PARAMS, dtype=jnp.bfloat16)(a),
        lambda a: linen.RNN(LSTM).apply({"params": {"cell": linen.to_dict(PARAMS)}}, a),
    ],
    "x": [lambda a: LSTM(PARAMS, STATE, a), lambda a: sequences.repeat(LSTM, PARAMS, a, 3)],
    "xs[1]": [lambda a: run(jaxrnn.Masked(LSTM), xs=(XS, a))],
    "params.w_h": [
        lambda a: run(params=PARAMS._replace(w_h=a)),
        lambda a: nnx.RNN(LSTM, params=PARAMS._replace(w_h=a)),
    ],
    "state.c": [lambda a: run(state=STATE._replace(c=a))],
    "ys": [
        sequences.last_output,
        sequences.mean_output,
        sequences.max_output,
        sequences.bidirectional_last_output,
        lambda a: sequences.held_output(a, jnp.ones((5, 2), bool)),
        lambda a: sequences.unpack(PACKED, a),
        lambda a: sequences.last_of_each(PACKED, a),
    ],
    "tokens": [lambda a: regularization.embedding_dropout(KEY, 0.5, a, ONES)],
    "embedded": [lambda a: regularization.embedding_dropout(KEY, 0.5, jnp.ones((5, 2), int), a)],
    "predictions": [lambda a: losses.sequence_loss(jnp.subtract, a, ONES)],
    "targets": [
        lambda a: losses.sequence_loss(jnp.subtract, ONES, a),
        lambda a: losses.nce_loss(KEY, ONES, jnp.ones((3, 3)), jnp.ones(3), a, TABLE, 2),
        lambda a: losses.sampled_softmax_loss(KEY, ONES, jnp.ones((3, 3)), jnp.ones(3), a, TABLE, 2),
    ],
    "logits": [lambda a: losses.piano_roll_loss(a, ONES), penalties.batch_entropy],
    "labels": [lambda a: losses.ctc_loss(ONES, a)],
    "hs": [functools.partial(penalties.norm_stabilizer, beta=1.0)],
    "memory": [lambda a: DECODER.attend(MEMORY, a)],
}


@pytest.mark.parametrize("name", TAKES_ARRAYS)
def test_tensors_and_lists_are_refused_by_name(name):
    """Where they would lose their gradients, or be pytrees of numbers."""
    for call in TAKES_ARRAYS[name]:
        for bad, kind in [(Tensor(), "torch.Tensor"), (np.ones((5, 2, 3)).tolist(), "list")]:
            needs = f"{name}: got a {kind}, needs an array of JAX's or NumPy's; jnp.asarray({name}) makes one"
            with pytest.raises(TypeError, match=f"^{re.escape(needs)}"):
                call(bad)


TABLE7, WORDS = losses.alias_table(np.full(7, 1 / 7)), ["the", "cat", "sat"]
HIDDEN, W_OUT, B_OUT, TARGETS = jnp.ones((5, 2, 4)), jnp.ones((4, 7)), jnp.ones(7), jnp.zeros((5, 2), int)
NET = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
STEP, NET_STATE, TOKEN = decoding.make_step(NET, example(NET)[0]), NET.initial_state((2,)), jnp.array([0, 1])


def looking(look, act, state):
    return reinforce.recurrent_attention(KEY, GRU, example(GRU)[0], look, act, 5, state)


# What is easily mistaken: the wrong kind, arguments exchanged, an axis too few, numbers out of range.
MISTAKES = {
    "a mask of T alone": (lambda: sequences.mask_from_lengths(3, jnp.array([2])), "steps: got ArrayImpl, needs T"),
    "zeros in numbers": (
        lambda: sequences.mask_from_zeros(jnp.ones(3)),
        r"xs: got the shape \(3,\), needs \[T, \*batch, I",
    ),
    "no time in a mask": (
        lambda: sequences.lengths_from_mask(np.array(True)),
        r"mask: got the shape \(\), needs \[T, ",
    ),
    "leaves of other T": (
        lambda: sequences.reverse_sequence((jnp.ones((3, 2)), jnp.ones((4, 2)))),
        r"xs: got the shapes \[\(3, 2\), \(4, 2\)\], needs the same T",
    ),
    "the mean of integers": (lambda: sequences.mean_output(TARGETS), "ys: got the dtype int32, needs real values"),
    "the greatest integer": (lambda: sequences.max_output(TARGETS), "ys: got the dtype int32, needs real values"),
    "a word for a direction": (
        lambda: sequences.held_output(HIDDEN, jnp.ones((5, 2), bool), reverse="yes"),
        "reverse: got 'yes', needs a bool",
    ),
    "half of three": (
        lambda: sequences.bidirectional_last_output(jnp.ones((5, 3))),
        "forward_size: got None, needs the length of the forward part of 3 outputs",
    ),
    "params for a cell": (
        lambda: sequences.repeat(PARAMS, LSTM, XS[0], 5),
        "cell: got LSTMParams, needs a jaxrnn.Cell",
    ),
    "no loss": (lambda: losses.sequence_loss("mse", HIDDEN, HIDDEN), "loss: got 'mse', needs a function"),
    "a loss of nothing": (
        lambda: losses.sequence_loss(lambda y, t: None, HIDDEN, HIDDEN),
        "loss: got NoneType from it",
    ),
    "one prediction": (lambda: losses.sequence_loss(jnp.subtract, 1.0, 1.0), r"predictions: got the shape \(\), needs"),
    "keys of another piano": (
        lambda: losses.piano_roll_loss(HIDDEN, jnp.ones((5, 2, 3))),
        r"keys: got the shape \(5, 2, 3\), needs \[T, \*batch, K\] = \(5, 2, 4\)",
    ),
    "one row of CTC": (lambda: losses.ctc_loss(jnp.ones((5, 4)), TARGETS), r"logits: .*\(5, 4\), needs \[T, B, K\]"),
    "batch-major CTC": (lambda: losses.ctc_loss(jnp.ones((5, 2, 4)), jnp.ones((5, 3), int)), r"labels: .* B = 2 as in"),
    "real CTC labels": (
        lambda: losses.ctc_loss(HIDDEN, jnp.ones((2, 3))),
        "labels: got the dtype float32, needs integ",
    ),
    "no such blank": (lambda: losses.ctc_loss(HIDDEN, TARGETS[:2], blank=9), r"blank: got 9, needs a class in 0\.\.3"),
    "probabilities for a table": (
        lambda: losses.nce_loss(KEY, HIDDEN, W_OUT, B_OUT, TARGETS, np.full(7, 1 / 7), 3),
        "table: got ndarray, needs an AliasTable",
    ),
    "real targets": (
        lambda: losses.nce_loss(KEY, HIDDEN, W_OUT, B_OUT, jnp.zeros((5, 2)), TABLE7, 3),
        "targets: got the dtype float32, needs integers",
    ),
    "a name for an axis": (lambda: losses.max_norm(1.0, axis="a"), "axis: got 'a', needs an integer"),
    "words for a table": (lambda: losses.alias_table("words"), r"probabilities: got str, needs numbers \[V\]"),
    "one reference": (
        lambda: metrics.bleu(WORDS, WORDS),
        r"references: got one text, needs a list of them, \[reference\]",
    ),
    "several references": (
        lambda: metrics.rouge_n(WORDS, [WORDS]),
        "reference: got a sequence of list, needs the tokens",
    ),
    "no tokens": (lambda: metrics.rouge_s(3, WORDS), "candidate: got int, needs a sequence of tokens"),
    "half a word": (lambda: metrics.rouge_s(WORDS, WORDS, skip=0.5), "skip: got 0.5, needs an integer of at least 0"),
    "params for a state": (lambda: states.constant_state(PARAMS, 0.5), "cell: got LSTMParams, needs a jaxrnn.Cell"),
    "a number for a shape": (lambda: states.constant_state(GRU, 0.5, 2), r"batch_shape: got 2, needs a tuple"),
    "a batch for a shape": (
        lambda: GRU.initial_state(2),
        r"batch_shape: got 2, needs a tuple, such as \(2,\)",
    ),
    "a batch for the shape of a network": (
        lambda: NET.initial_state(batch_shape=np.int64(7)),
        r"batch_shape: got .*7.*, needs a tuple, such as \(7,\)",
    ),
    "a word for the shape of one's own cell": (
        lambda: Leaky().initial_state("ab"),
        r"batch_shape: got 'ab', needs a tuple, such as \(2,\)",
    ),
    "a real batch": (lambda: jaxrnn.explain(GRU, steps=5, batch=2.0), r"batch: got 2\.0, needs a tuple, such as"),
    "a cell without an input": (
        lambda: run(Inputless(), Leaky().init(KEY), (), None),
        r"input_spec: got no arrays from Inputless\(\), needs one at least, by which T is known",
    ),
    "a linear cell without drives": (
        lambda: run(Fixed(3, 4, scan="associative"), example(Fixed(3, 4))[0], XS, None),
        r"coefficients: got arrays without T from Fixed\(.*, needs \[T, \*batch, \.\.\.\], of its drives",
    ),
    "a loss of one argument": (
        lambda: losses.sequence_loss(jnp.sin, HIDDEN, HIDDEN),
        r"loss: got sin\(x\), needs a function \(predictions, targets\) -> \[T, \*batch\]",
    ),
    "a state for a number": (lambda: states.noisy_state(KEY, STATE, 0.1), "std: got a .*LSTMState, needs an array"),
    "a cell for a phase": (lambda: states.remember("train", GRU, None), r"training: got GRU\(.*, needs a bool"),
    "samples of another shape": (
        lambda: reinforce.normal_log_prob(jnp.ones(3), 1.0, jnp.ones(2)),
        r"sample: got the shape \(2,\), needs one that broadcasts with mean \(3,\), std \(\)",
    ),
    "real classes": (lambda: reinforce.categorical_log_prob(HIDDEN, HIDDEN[..., 0]), "sample: got .*, needs integers"),
    "one-hot classes": (
        lambda: reinforce.categorical_log_prob(HIDDEN, jnp.ones((5, 2, 4), int)),
        r"sample: got the shape \(5, 2, 4\), needs \[\*batch\] = \(5, 2\)",
    ),
    "a list of rewards": (lambda: reinforce.surrogate([1.0], [1.0]), "log_prob: got a list, needs an array"),
    "a list for a baseline": (lambda: reinforce.baseline_loss([1.0], [1.0]), "baseline: got a list, needs an array"),
    "targets of another batch": (
        lambda: reinforce.class_reward(HIDDEN, TARGETS[:3]),
        r"targets: got the shape \(3, 2\), needs \[\*batch\] = \(5, 2\)",
    ),
    "images without channels": (
        lambda: reinforce.glimpse(jnp.ones((28, 28)), jnp.zeros(2), 8),
        r"images: got the shape \(28, 28\), needs \[\*batch, height, width, C\]",
    ),
    "nowhere to look": (lambda: looking(None, jnp.add, GRU.initial_state((2,))), "look: got None, needs a function"),
    "no state to begin in": (
        lambda: looking(jnp.tanh, jnp.add, None),
        r"state: got the structure None, needs GRUState",
    ),
    "a word for axes": (
        lambda: regularization.embedding_dropout(KEY, 0.5, TARGETS, HIDDEN, share="batch"),
        r"share: got 'batch', needs one of \(\), \('batch',\)",
    ),
    "no predictor": (lambda: regularization.monte_carlo(KEY, HIDDEN, 3), "predict: got ArrayImpl, needs a function"),
    "a state for a token": (
        lambda: decoding.generate(STEP, TOKEN, NET_STATE, 4),
        r"token: got tuple, needs integers \[B\]",
    ),
    "the class of a transform": (
        lambda: decoding.generate(STEP, NET_STATE, TOKEN, 4, transforms=(decoding.Temperature,)),
        r"transforms\[0\]: got the class Temperature, needs one made of it",
    ),
    "a transform of one row": (
        lambda: decoding.generate(STEP, NET_STATE, TOKEN, 4, transforms=(lambda logits, counts: logits[0],)),
        r"transforms\[0\]: got the shape \(7,\) from it, needs logits \[B, V\] = \(2, 7\)",
    ),
    "no rate": (lambda: decoding.teacher_forcing(STEP, NET_STATE, TOKEN, TARGETS, own=None), "own: got a NoneType"),
    "several rates": (
        lambda: decoding.teacher_forcing(STEP, NET_STATE, TOKEN, TARGETS, own=jnp.ones(2), key=KEY),
        r"own: got Array\(\[1., 1.\].*, needs a rate in",
    ),
}


@pytest.mark.parametrize(("call", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_values_of_many_lines_are_named_by_their_type():
    for check in (checks.check_sizes, checks.check_positive, checks.check_rate, checks.check_counts):
        with pytest.raises(ValueError, match="of: got ndarray, needs a"):
            check(of=np.ones((9, 9)))


def test_what_arrays_of_numpy_and_numbers_are_good_for_still_holds():
    assert metrics.bleu(np.array([1, 2]), jnp.array([[1, 2]])) == metrics.rouge_n(jnp.array([1, 2]), [1, 2]) == 1.0
    found = reinforce.normal_log_prob(0.0, 1.0, jnp.zeros(3))
    np.testing.assert_allclose(found, np.full(3, -0.5 * np.log(2 * np.pi)), rtol=1e-6)


def test_tensors_are_refused_where_lists_are_pytrees():
    for call in (lambda a: ops.dropout(KEY, 0.5, a), lambda a: states.noisy_state(KEY, 0.1, a)):
        with pytest.raises(TypeError, match=r"got a torch\.Tensor, needs an array"):
            call(Tensor())
    with pytest.raises(TypeError, match=r"key: got .*Tensor.*, needs a key"):
        run(key=Tensor())


def test_numbers_for_sequences_are_refused():
    with pytest.raises(ValueError, match=r"ys: got the shape \(\), needs \[T, \*batch, H\]"):
        sequences.last_output(3.0)
    with pytest.raises(ValueError, match=r"sequences\[0\]: got the shape \(\) of int.*, needs an array \[T, "):
        next(sequences.buckets([3, 4], (2,), 1))


class LeakyState(NamedTuple):
    h: jax.Array


@dataclasses.dataclass(frozen=True)
class Leaky(jaxrnn.Cell):
    """The README's cell; the method `broken` returns what it should not."""

    input_size: int = 3
    hidden_size: int = 4
    broken: str = ""
    by: Callable[[Any], Any] = lambda result: None

    def given(self, name, result):
        return self.by(result) if name == self.broken else result

    def init(self, key, *, dtype=jnp.float32):
        return self.given("init", (jnp.ones((3, 4), dtype), jnp.ones((4, 4), dtype)))

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return self.given("initial_state", LeakyState(jnp.zeros((*batch_shape, 4), dtype)))

    def project(self, params, x):
        return self.given("project", x @ params[0])

    def step(self, params, state, drive):
        h = jnp.tanh(drive + state.h @ params[1])
        return self.given("step", (LeakyState(h), h))

    def readout(self, params, output, drive):
        return self.given("readout", output)


@dataclasses.dataclass(frozen=True)
class Inputless(Leaky):
    """It forgets that T comes from the input."""

    @property
    def input_spec(self):
        return ()


@dataclasses.dataclass(frozen=True)
class Fixed(jaxrnn.MinGRU):
    """A linear cell that does not look at its input."""

    def project(self, params, x):
        return ()

    def coefficients(self, params, drive):
        return type(self.initial_state())(jnp.ones(4)), type(self.initial_state())(jnp.ones(4))


NOTHING = r"got None from Leaky\(.*needs a pytree of arrays, \(\) for none; is there a `return`\?"


@pytest.mark.parametrize(
    ("broken", "by", "message"),
    [
        ("init", lambda params: None, f"init: {NOTHING}"),
        ("initial_state", lambda state: None, f"initial_state: {NOTHING}"),
        ("initial_state", lambda state: LeakyState(0.0), r"initial_state: state\.h: got .*, needs \[\*batch_shape, "),
        (
            "initial_state",
            lambda state: LeakyState(jnp.zeros(4)),
            r"initial_state: state\.h: got the shape \(4,\) from Leaky\(.*, needs \[\*batch_shape, .* = \(2,\)",
        ),
        ("project", lambda drive: None, f"project: {NOTHING}"),
        ("step", lambda result: None, r"step: got NoneType from Leaky\(.*needs a pair \(state, output\)"),
        ("step", lambda result: (None, result[1]), r"step: state: got the structure None, needs LeakyState\(h\)"),
        ("step", lambda result: (result[0], None), f"step, readout: output: {NOTHING}"),
        ("readout", lambda y: None, f"step, readout: output: {NOTHING}"),
    ],
)
def test_a_method_that_returns_nothing_is_named(broken, by, message):
    """In a run, within a network, and in a single step."""
    cell = Leaky(broken=broken, by=by)
    params, state, xs = Leaky().init(KEY), Leaky().initial_state((2,)), jnp.ones((5, 2, 3))
    given = None if broken == "init" else params
    calls = [
        lambda: jaxrnn.unroll(cell, given, xs),
        lambda: jaxrnn.unroll(jaxrnn.Stack((cell,)), (given,), xs),
        lambda: cell(given, state, xs[0]),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            call()


def test_bad_calls_inside_of_jit():
    """What shapes tell is told while tracing; lengths are checked where they are known."""
    with pytest.raises(ValueError, match=r"xs: got the shape \(5, 2, 4\)"):
        jax.jit(run)(xs=jnp.ones((5, 2, 4)))
    with pytest.raises(ValueError, match="lengths: got values from 1 to 6"):
        jax.jit(lambda xs: run(xs=xs, lengths=np.array([1, 6])))(XS)


@pytest.mark.parametrize("kind", [jaxrnn.Elman, jaxrnn.LSTM, jaxrnn.GRU], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [0, -1, 2.0, "3", None, True])
def test_sizes_are_positive_integers(kind, size):
    with pytest.raises(ValueError, match=f"input_size: got {size!r}, needs a positive integer"):
        kind(size, 4)
    with pytest.raises(ValueError, match=f"hidden_size: got {size!r}, needs a positive integer"):
        kind(3, size)


def test_numpy_integers_are_sizes():
    """As they come from a shape that NumPy computed."""
    assert jaxrnn.LSTM(np.int64(3), 4).input_size == 3


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_projections_are_positive(size):
    with pytest.raises(ValueError, match=f"projection_size: got {size!r}, needs a positive integer"):
        jaxrnn.Projected(jaxrnn.LSTM(3, 4), size)


@pytest.mark.parametrize("reset", ["both", None, True])
def test_options_are_those_there_are(reset):
    with pytest.raises(ValueError, match=f"reset: got {reset!r}, needs one of 'after', 'before'"):
        jaxrnn.GRU(3, 4, reset=reset)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="peepholes"):
        jaxrnn.LSTM(3, 4, peepholes=True)
    with pytest.raises(TypeError, match="length"):
        run(length=3)


NEED_PACKAGES = {
    "onnx": [lambda: convert.to_onnx(LSTM, PARAMS), lambda: convert.from_onnx(b"")],
    "safetensors": [lambda: convert.to_safetensors(LSTM, PARAMS, ""), lambda: convert.from_safetensors("")],
    "equinox": [lambda: convert.to_equinox(LSTM, PARAMS)],
    "keras": [lambda: convert.to_keras(LSTM, PARAMS)],
    "torch": [lambda: convert.to_torch(LSTM, PARAMS)],
}


@pytest.mark.parametrize("package", NEED_PACKAGES)
def test_what_is_not_installed_is_named_with_its_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for call in NEED_PACKAGES[package]:
        with pytest.raises(ModuleNotFoundError, match=f"^{package}: not installed; pip install 'jaxrnn.{package}.'"):
            call()


def test_names_that_are_elsewhere_are_told_where(monkeypatch):
    monkeypatch.delattr(jaxrnn, "plots", raising=False)
    with pytest.raises(AttributeError, match=r"'plots' until it is imported: import jaxrnn\.plots$"):
        _ = jaxrnn.plots
    with pytest.raises(AttributeError, match=r"'Truncated': it is jaxrnn\.networks\.Truncated$"):
        _ = jaxrnn.Truncated
    with pytest.raises(AttributeError, match=r"'LSTMState': it is jaxrnn\.cells\.LSTMState$"):
        _ = jaxrnn.LSTMState
    with pytest.raises(AttributeError, match=r"no attribute 'RNN'$"):
        _ = jaxrnn.RNN


NUMBERS = [0, 0.5, 2, np.int64(2), np.float32(0.5), True, np.bool_(True), "1", None, 1j, float("nan"), float("inf")]


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (checks.check_rate, NUMBERS[:2] + NUMBERS[4:5]),
        (checks.check_positive, NUMBERS[1:5]),
        (functools.partial(checks.check_at_least, 0.5), NUMBERS[1:5]),
    ],
    ids=["rate", "positive", "at least"],
)
def test_numbers_are_finite_and_may_be_numpy_s(check, good):
    for number in NUMBERS:
        if any(number is one for one in good):
            check(of=number)
        else:
            with pytest.raises(ValueError, match=f"of: got {re.escape(repr(number))}, needs a "):
                check(of=number)


def test_a_flag_of_numpy_is_a_flag():
    final, _ = run(reverse=np.bool_(True))
    np.testing.assert_array_equal(final.h, run(reverse=True)[0].h)


def test_raw_keys_are_keys():
    """Those of `jax.random.PRNGKey`, in every function that takes a key."""
    net, raw = jaxrnn.Stack((jaxrnn.GRU(3, 4), GRU_ABOVE), dropout=0.5), np.array([0, 7], np.uint32)
    params, xs, _ = example(net)
    typed = jax.random.wrap_key_data(raw)
    np.testing.assert_array_equal(
        jaxrnn.unroll(net, params, xs, key=raw)[1], jaxrnn.unroll(net, params, xs, key=typed)[1]
    )
    np.testing.assert_array_equal(*(jaxrnn.ops.dropout(k, 0.5, jnp.ones(9)) for k in (raw, typed)))
