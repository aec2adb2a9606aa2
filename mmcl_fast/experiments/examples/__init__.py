"""Published figures of neighbouring models, from their text (`docs/examples/index.md`)."""
