"""Accuracies, not time: other readings of the paper, and where accuracy rises."""
