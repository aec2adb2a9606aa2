"""Accuracies, not time: other interpretations of the paper, and thresholds of accuracy."""
