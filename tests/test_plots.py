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
