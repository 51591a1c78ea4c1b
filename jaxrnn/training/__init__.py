"""Training as plain functions around Optax, Orbax and rich.

    state      = init_state(key, params, optimizer, carry)     everything an exact resume needs
    train_step = make_train_step(loss_fn, optimizer)           jitted, `(state, batch) -> (state, metrics)`
    state      = fit(state, train_step, batches, steps=...)    the loop: progress, metrics, evaluation, checkpoints
    state      = restore(directory, state)                     the same state again, to go on from
    params     = restore_params(directory, params)             its parameters alone, to use the model
    optimizer  = optax.chain(..., triggered_average(...))      averages parameters once a held-out loss stops falling
    params     = averaged_params(state.opt_state)              the average

Truncated backpropagation through time needs no more than a `carry`: the loss takes the recurrent state that the window
before left and returns that of its own window; values cross the boundary, gradients do not.
"""

from jaxrnn.training.averaging import averaged_params, triggered_average
from jaxrnn.training.loop import NonFiniteError, fit, restore, restore_params
from jaxrnn.training.steps import TrainState, init_state, make_train_step

__all__ = [
    "NonFiniteError",
    "TrainState",
    "averaged_params",
    "fit",
    "init_state",
    "make_train_step",
    "restore",
    "restore_params",
    "triggered_average",
]
