"""Queries: the language, how they run, and how their answers stay up to date."""
