"""Two reducers whose functions have one name, as in a loop: what the error says to do works."""

from __future__ import annotations

from harness import RunningKernel

LOOP = """
from lo_kernel import student_event_reducer
for step in (1, 2):
    @lo.reducer(f'steps{step}', null_state={'n': 0})
    %s
    def steps(event, state, step=step):
        return {'n': state['n'] + step}, None
"""


def test_a_loop_is_told_what_it_can_do(shared_kernel: RunningKernel) -> None:
    """The decorator that it names is one that takes what it names."""
    shown = shared_kernel.execute(LOOP % "", check=False).error
    assert "would both write the keys 'Internal,__main__.steps,...'" in shown
    assert "qualname_override=... in a @student_event_reducer or @kvs_pipeline under its @lo.reducer" in shown
    way = "@student_event_reducer(null_state={'n': 0}, qualname_override=f'steps{step}')"
    shared_kernel.execute(LOOP % way)
    shared_kernel.execute("typed = await lo.simulate(students=1, seconds=1, speed=5)")
    sums = [f"sum(row['n'] for row in await lo.query('steps{step}'))" for step in (1, 2)]
    shared_kernel.execute(f"one, two = {', '.join(sums)}")
    assert shared_kernel.execute("0 < 2 * one == two").value == "True"
