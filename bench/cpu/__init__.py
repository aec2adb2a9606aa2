"""What one operation takes on a CPU, beside its peers: one module each, called by `bench.run`."""
