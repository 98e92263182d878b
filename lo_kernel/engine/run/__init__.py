"""One pass of a reducer over the events: its live states, and the folding of an event into one.

A :class:`Run` takes events in (:mod:`~lo_kernel.engine.run.taking`), each in one step of the loop. What an
answer does to a state, how a state is put back, and what takes longer than a step is
:mod:`~lo_kernel.engine.run.folding`. The states in memory (:mod:`~lo_kernel.engine.run.live_states`) and the
events that wait (:mod:`~lo_kernel.engine.run.waiting`) know nothing of reducers.
"""

from __future__ import annotations

from lo_kernel.engine.run.live_state import MISSING, Item, LiveState, Snapshot
from lo_kernel.engine.run.run import Run
from lo_kernel.engine.run.waiting import PENDING, ROOM

__all__ = ["MISSING", "PENDING", "ROOM", "Item", "LiveState", "Run", "Snapshot"]
