"""Evaluation for validation and test: scores, computed in separate processes, and pictures."""
