"""Who computes: one shard, workers that may die, and where they run."""
