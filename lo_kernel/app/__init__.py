"""The LO app: events in, queries out, pages, and who may ask for what."""
