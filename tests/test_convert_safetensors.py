"""Files of parameters with their cell: every cell there is, damaged and hostile files, other tools."""

import json
import os
import struct

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import convert, networks
from jaxrnn.convert.description import build, check_sizes, describe
from tests import cells, functions
from tests.oracles import oracle
from tests.registry import CELLS, NETWORKS, draw, example

KNOWN = (cells.Counter, cells.Token, functions.feedback, functions.feedback_params, functions.feedback_state)
NET = jaxrnn.Stack((jaxrnn.Bidirectional(jaxrnn.LSTM(3, 4)), jaxrnn.GRU(8, 4, activation=jax.nn.relu)), dropout=0.5)
CLIPPED = convert.onnx.OnnxActivation("Tanh", clip=0.5)
IMPORTED = jaxrnn.Stack(  # as a model of ONNX may come in
    (jaxrnn.Elman(3, 4, CLIPPED), networks.Reversed(jaxrnn.GRU(4, 4)), networks.Linear(4, 2))
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.fixture
def whole(path):
    convert.to_safetensors(NET, example(NET)[0], path)
    return path


def test_every_cell_is_described():
    for cell in [IMPORTED, *(entry.cell for entry in (*CELLS, *NETWORKS))]:
        text = json.dumps(describe(cell, KNOWN), allow_nan=False)
        assert build(json.loads(text), KNOWN) == cell


def test_files_are_read_back(path):
    """Of cells whose parameters are trees of every kind: with None, nested, empty, an array alone."""
    kinds = (jaxrnn.GRU, jaxrnn.Projected, jaxrnn.LMU, jaxrnn.LearnedState, jaxrnn.Function, cells.Token)
    chosen = {type(entry.cell): entry.cell for entry in CELLS if isinstance(entry.cell, kinds)}
    assert len(chosen) == len(kinds)
    for cell in (NET, IMPORTED, jaxrnn.Embedding(5, 4), *chosen.values()):
        params = draw(0, jax.eval_shape(cell.init, jax.random.key(0)), jnp.float32)
        convert.to_safetensors(cell, params, path, known=KNOWN)
        back, copy = convert.from_safetensors(path, known=KNOWN)
        assert back == cell
        chex.assert_trees_all_equal_structs(copy, params)
        chex.assert_trees_all_equal(copy, params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64], ids=lambda dtype: dtype.__name__)
def test_dtypes_are_kept(path, dtype):
    with jax.enable_x64(True):
        params = draw(0, jax.eval_shape(jaxrnn.GRU(3, 4).init, jax.random.key(0)), dtype)
        convert.to_safetensors(jaxrnn.GRU(3, 4), params, path)
        _, copy = convert.from_safetensors(path)
        assert copy.w_x.dtype == dtype
        chex.assert_trees_all_equal(copy, params)
    if dtype == jnp.float64:
        with pytest.raises(ValueError, match="float64, which JAX would round"):
            convert.from_safetensors(path)


def test_other_tools_read_it(whole):
    torch = oracle("safetensors.torch")
    arrays = torch.load_file(whole)
    assert {"0.forward.w_x", "0.backward.b", "1.b_n"} <= arrays.keys()
    np.testing.assert_array_equal(arrays["1.b_n"].numpy(), example(NET)[0][1].b_n)
    params = {name: a for name, a in arrays.items() if name.startswith("1.")}
    assert len(params) == 4


def test_only_the_file_is_left(whole):
    convert.to_safetensors(NET, example(NET)[0], whole, metadata={"letters": "abc"})
    assert os.listdir(whole.parent) == [whole.name]
    before = whole.read_bytes()
    with pytest.raises(ValueError, match="needs one of JAX's activations"):
        convert.to_safetensors(jaxrnn.Elman(3, 4, lambda x: x), example(jaxrnn.Elman(3, 4))[0], whole)
    with pytest.raises(ValueError, match="metadata: got"):
        convert.to_safetensors(NET, example(NET)[0], whole, metadata={"jaxrnn": ""})
    assert whole.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file(whole, monkeypatch):
    before = whole.read_bytes()

    def full(file):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        convert.to_safetensors(NET, example(NET)[0], whole)
    assert (os.listdir(whole.parent), whole.read_bytes()) == ([whole.name], before)


def rewritten(path, change):
    """The file with another header."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def description(text):
    return lambda header: header["__metadata__"].update(jaxrnn=text)


def cell(value):
    return description(json.dumps({"version": 1, "cell": value}))


def nested(depth):
    inner = {"GRU": {"input_size": 3, "hidden_size": 3}}
    for _ in range(depth):
        inner = {"Residual": {"cell": inner}}
    return inner


HEADERS = {
    "no description": (lambda h: h["__metadata__"].pop("jaxrnn"), "without the description of a cell"),
    "no JSON": (description("{"), "the description of the cell: Expecting"),
    "another JSON": (description("[]"), "needs a version and a cell"),
    "a later version": (description('{"version": 2, "cell": {}}'), "reads version 1"),
    "deep nesting": (
        description('{"version": 1, "cell": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        "the description of the cell",
    ),
    "nested cells": (cell({"Residual": {"cell": {}}}), "got an object of the names"),
    "an unknown cell": (cell({"Popen": {"args": "ls"}}), "unknown cell 'Popen'; known="),
    "an abstract cell": (cell({"StepWrapper": {}}), "unknown cell 'StepWrapper'"),
    "a dotted name": (cell({"os.system": {}}), "unknown cell 'os.system'"),
    "an unknown function": (
        cell({"Elman": {"input_size": 3, "hidden_size": 4, "activation": {"function": "eval"}}}),
        "function 'eval'",
    ),
    "a cell as a function": (
        cell({"Elman": {"input_size": 3, "hidden_size": 4, "activation": {"function": "GRU"}}}),
        "function 'GRU'",
    ),
    "a function as a cell": (cell({"relu": {"x": 3}}), "unknown cell 'relu'"),
    "a function alone": (cell({"function": "relu"}), "needs the description of a cell"),
    "an unknown option": (cell({"LSTM": {"input_size": 3, "hidden_size": 4, "__class__": 1}}), "LSTM does not take"),
    "a value of another kind": (cell({"Stack": {"cells": 3}}), "Stack does not take"),
    "no options": (cell({"LSTM": [3, 4]}), "needs its options by name"),
    "a size that is wrong": (cell({"LSTM": {"input_size": -3, "hidden_size": 4}}), "input_size: got -3"),
    "sizes of more memory than there is": (
        cell({"LSTM": {"input_size": 10**9, "hidden_size": 10**9}}),
        "cell.input_size: got 1000000000, the file has .* values in all",
    ),
    "a matrix of more memory than there is": (
        cell({"Stack": {"cells": [{"S5": {"input_size": 1, "hidden_size": 10**5}}]}}),
        r"cell.cells\[0\].hidden_size: got 100000, the file has",
    ),
    "an order of more memory than there is": (
        cell({"LMU": {"input_size": 3, "hidden_size": 4, "order": 10**5, "theta": 9.0}}),
        "cell.order: got 100000, the file has",
    ),
    "cells around cells": (cell(nested(300)), "got cells that are nested too deep|got the names"),
    "another cell": (cell({"LSTM": {"input_size": 3, "hidden_size": 4}}), "got the names"),
    "a name too many": (lambda h: h.update({"x": h.pop("1.b")}), "got the names"),
    "another shape": (lambda h: h["1.b"].update(shape=[3, 4]), r"1.b: got the shape \(3, 4\)"),
    "another dtype": (lambda h: h["1.b"].update(dtype="I32"), "got the dtype int32, needs real values"),
    "an offset beyond the end": (lambda h: h["1.b"].update(data_offsets=[0, 10**9]), "got no whole file"),
    "two arrays in one place": (
        lambda h: h["1.b"].update(data_offsets=h["1.b_n"]["data_offsets"]),
        "got no whole file",
    ),
}


@pytest.mark.parametrize(("change", "message"), HEADERS.values(), ids=HEADERS)
def test_hostile_files(whole, change, message):
    rewritten(whole, change)
    with pytest.raises(ValueError, match=message) as caught:
        convert.from_safetensors(whole)
    assert whole.name in str(caught.value)


def test_sizes_that_have_no_parameters_are_not_bounded(path):
    image = jaxrnn.ConvLSTM((1000, 1000, 1), 1, 1)
    convert.to_safetensors(image, draw(0, jax.eval_shape(image.init, jax.random.key(0)), jnp.float32), path)
    assert convert.from_safetensors(path)[0] == image
    for cell in (entry.cell for entry in (*CELLS, *NETWORKS)):
        spec = jax.eval_shape(cell.init, jax.random.key(0))
        check_sizes(describe(cell, KNOWN), sum(leaf.size for leaf in jax.tree.leaves(spec)))


def test_truncated_and_foreign_files(whole):
    data = whole.read_bytes()
    for part in (b"", data[:7], data[:40], data[:-1], data + b"\0", b"\x80\x04K\x01.", b"\xff" * 64):
        whole.write_bytes(part)
        with pytest.raises(ValueError, match="got no whole file of the safetensors format"):
            convert.from_safetensors(whole)
    with pytest.raises(FileNotFoundError):
        convert.from_safetensors(whole.parent / "nothing")


def test_what_is_known_is_asked_for():
    assert build(describe(cells.Counter(3, 4), KNOWN), KNOWN) == cells.Counter(3, 4)
    with pytest.raises(ValueError, match=r"got a Counter, needs cells of jaxrnn, or known=\(Counter,\)"):
        describe(cells.Counter(3, 4))
    with pytest.raises(ValueError, match="known: got"):
        describe(NET, known=(lambda x: x,))

    class GRU(jaxrnn.Cell):
        pass

    with pytest.raises(ValueError, match="with names of their own"):
        build({"GRU": {}}, known=(GRU,))
