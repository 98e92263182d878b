"""A Jupyter kernel in which the Learning Observer is alive.

This module is the package's public list. Each name is imported when it is first asked for, so that
`import lo_kernel` costs nearly nothing: a kernel's start, a command line and a test that need one of them do
not pay for the others.

>>> import lo_kernel
>>> lo_kernel.__version__.count(".")
2
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # a type checker takes it for true; `typing` is most of what importing this would cost
if TYPE_CHECKING:
    from lo_kernel.engine.keys import EventField as EventField
    from lo_kernel.engine.keys import KeyField as KeyField
    from lo_kernel.engine.keys import Scope as Scope
    from lo_kernel.engine.reducers import kvs_pipeline as kvs_pipeline
    from lo_kernel.engine.reducers import student_event_reducer as student_event_reducer
    from lo_kernel.kernel.kernel import LOKernel as LOKernel
    from lo_kernel.notebook.observer import LearningObserver as LearningObserver

__version__ = "0.1.0"

__all__ = [
    "EventField",
    "KeyField",
    "LOKernel",
    "LearningObserver",
    "Scope",
    "__version__",
    "kvs_pipeline",
    "student_event_reducer",
]

_HOMES = {
    "EventField": "lo_kernel.engine.keys",
    "KeyField": "lo_kernel.engine.keys",
    "LOKernel": "lo_kernel.kernel.kernel",
    "LearningObserver": "lo_kernel.notebook.observer",
    "Scope": "lo_kernel.engine.keys",
    "kvs_pipeline": "lo_kernel.engine.reducers",
    "student_event_reducer": "lo_kernel.engine.reducers",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up finds it here and does not come back
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
