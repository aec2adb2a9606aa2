"""MNIST: format, verification, fetching; and ColoredMNIST made from it."""
