"""Triton kernels. Importing this package imports no Triton; each kernel file does."""
