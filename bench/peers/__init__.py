"""Peers: other implementations of training, and losses of other libraries."""
