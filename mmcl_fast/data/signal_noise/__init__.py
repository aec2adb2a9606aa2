"""The paper's signal-noise data: drawn, reduced or streamed, for one run or for many."""
