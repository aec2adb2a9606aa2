"""Statements of the paper's theory against training runs, one file a check (`docs/claims.md`)."""
