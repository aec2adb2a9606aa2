"""Time, memory, and what the machine could do."""
