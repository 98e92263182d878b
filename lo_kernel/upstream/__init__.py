"""The deployed Learning Observer as the app: ``app="learning_observer"``."""
