"""Table 1 of the paper: ColoredMNIST, single- against multi-modal learning (`docs/table1.md`)."""
