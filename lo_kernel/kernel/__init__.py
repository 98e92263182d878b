"""The kernel: an IPython kernel with a running app, how it is launched, and how Jupyter finds it."""
