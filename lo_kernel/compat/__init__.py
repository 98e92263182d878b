"""The field's names: ``import learning_observer...`` while the embedded app runs."""
