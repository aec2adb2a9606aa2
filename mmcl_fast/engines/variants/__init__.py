"""Model variants in coefficient space: other losses, gradients, similarities and signals."""
