"""What the field's notebooks call."""

from __future__ import annotations

from typing import Any

from lo_kernel.engine.keys import Scope
from lo_kernel.engine.reducers import Reducer
from lo_kernel.errors import LOError
from lo_kernel.notebook.jobs import Job

__all__ = ["add_reducer_to_lo"]


def add_reducer_to_lo(
    id: str,
    reducer: Reducer,
    module: str = "jupyter-helper",
    scope: Scope | None = None,
    context: str | None = None,
    default: Any = None,
    migrate: Any = "restream",
) -> Job[Any]:
    """Add a reducer to everything that is relevant, or put it in the place of the one with this ``id``.

    It gets the events to come (open connections included) and those so far, the query ``id`` answers with
    the class roster joined with each learner's state, and the home page lists it. ``context`` is the
    ``source`` of the events it gets, by default ``org.mitros.writing_analytics``; ``scope`` replaces the
    one it declares; ``default`` is what a query gives for a learner who has no state yet. ``migrate`` says
    what happens to the states so far: ``"restream"`` makes them anew from the archive.

    Gives a :class:`Job`, which is done when the reducer has seen the past; nobody has to await it. Raises
    :class:`~lo_kernel.errors.ReducerError` at once where something is wrong with the arguments.
    """
    job: Job[Any] = current_lo().add_reducer(
        id, reducer, module=module, scope=scope, context=context, default=default, migrate=migrate
    )
    return job


def current_lo() -> Any:
    """The ``lo`` of the kernel that this runs in; :class:`LOError` elsewhere."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    lo = getattr(getattr(shell, "kernel", None), "lo", None)
    if lo is None:
        raise LOError(
            "this works inside the kernel 'Learning Observer': choose it in JupyterLab, or run "
            "'jupyter console --kernel learning_observer'"
        )
    return lo
