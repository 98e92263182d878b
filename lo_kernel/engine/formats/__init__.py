"""File formats of events."""
