"""Benchmarks: cases, runner and results. Installed as `mmcl_fast.bench`."""
