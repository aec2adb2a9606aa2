"""Phase diagrams (`docs/phase.md`)."""
