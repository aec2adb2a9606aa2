"""CPU benchmarks, one module per operation, called by `bench.run`."""
