"""From notebook to package: ``lo.export`` and ``lo-kernel export``.

cells     what was executed, or what a file holds, as Python
units     each statement: what it binds, needs and changes, with its lines and comments
reach     the statements that a function reaches, in order
shipping  what of them can't be shipped, and why
plan      what to export: reducers, queries, dashboards under their new names
sample    a few learners' events with other ids, and the states they give
writer    the files of the package; moved into their place at once, or not at all
proof     built, installed into an environment of its own, tested there
report    what came of it
"""
