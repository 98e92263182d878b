"""A class overview from the raw events, with nothing to be written: ``lo.overview()``.

It is an ordinary LO module, and the example of how one looks:

* :mod:`lo_kernel.overview.reducers`: what is kept of each learner, event by event;
* :mod:`lo_kernel.overview.queries`: what is asked of that, and the functions that queries call;
* :mod:`lo_kernel.overview.module`: the names under which all of it is found.
"""
