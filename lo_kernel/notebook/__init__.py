"""What a notebook sees: `lo`, its jobs, charts and cards."""
