"""What is to be computed: axes, points, plans, and their cut into shards."""
