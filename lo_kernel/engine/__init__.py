"""The event engine: keys, events, archive, store, reducers, pipeline."""
