"""Tables and pictures of results: `python -m bench.report`."""
