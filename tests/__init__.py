"""Tests; packages, so that a test file can import the helper beside it."""
