"""Installed LO modules: found by the entry point ``lo_modules``, loaded when the app starts, served."""
