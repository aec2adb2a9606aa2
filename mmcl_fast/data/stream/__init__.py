"""Random numbers as pure functions of key, tag and position (`docs/stream.md`)."""
