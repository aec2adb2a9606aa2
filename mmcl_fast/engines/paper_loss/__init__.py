"""The paper's loss in one pass, with its gradient: the trainer's own forms of it."""
