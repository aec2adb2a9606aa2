"""The runs of a sweep: axes, points, plans, and their partition into shards."""
