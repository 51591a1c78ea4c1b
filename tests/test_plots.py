"""The pictures show what they are given."""

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

mpl.use("agg")

from jaxrnn import plots


def test_norms_have_a_line_a_row():
    ax = plots.gradient_norms(jnp.ones((5, 2)))
    assert len(ax.lines) == 2
    assert ax.get_yscale() == "log"
    mpl.pyplot.close(ax.figure)


def test_what_is_empty_has_no_picture():
    open_figures = mpl.pyplot.get_fignums()
    with pytest.raises(ValueError, match=r"norms: got the shape \(0, 2\), needs \[T, \*batch\], a step at least"):
        plots.gradient_norms(jnp.ones((0, 2)))
    with pytest.raises(ValueError, match="characters: got none, needs one at least"):
        plots.text("", jnp.ones(0))
    assert mpl.pyplot.get_fignums() == open_figures


def test_heat_and_text_show_every_step():
    ax = plots.text("ab\nc", np.array([1.0, -1.0, 0.0, 0.5]), width=2)
    assert [t.get_text() for t in ax.texts] == ["a", "b", "⏎", "c"]
    assert len({tuple(t.get_bbox_patch().get_facecolor()) for t in ax.texts}) == 4
    mpl.pyplot.close(ax.figure)
    ax = plots.heat(jnp.ones((3, 5)), "abc")
    assert ax.images[0].get_array().shape == (5, 3)
    mpl.pyplot.close(ax.figure)
    with pytest.raises(ValueError, match="values: got 2, needs one for each of the 3 characters"):
        plots.text("abc", np.ones(2))


def test_alignment_names_inputs_and_outputs_and_starts_at_white():
    weights = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    ax = plots.alignment(jnp.asarray(weights), "abc", ["x", "y"])
    np.testing.assert_array_equal(ax.images[0].get_array(), weights)
    assert ax.images[0].get_clim() == (0, 1)
    assert ax.images[0].cmap(0.0)[:3] == (1, 1, 1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("input", "output")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y"]
    mpl.pyplot.close(ax.figure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((3, 2, 4)),), r"weights: got the shape \(3, 2, 4\), needs \[outputs, inputs\]"),
        ((np.full((2, 3), -0.5),), "weights: got values from -0.5 on, needs at least 0; see heat"),
        ((np.ones((2, 3)), "ab"), r"inputs: got 2 labels, needs 3, the shape of weights is \(2, 3\)"),
        ((np.ones((2, 3)), None, "abc"), "outputs: got 3 labels, needs 2"),
    ],
)
def test_what_is_no_alignment(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.alignment(*arguments)
