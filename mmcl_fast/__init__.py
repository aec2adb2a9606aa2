"""High-performance contrastive learning of polynomial-ReLU two-layer networks."""
