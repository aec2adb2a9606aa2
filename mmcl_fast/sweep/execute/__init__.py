"""Execution of a sweep: shards, worker pools (local processes, Ray), Slurm scripts."""
