"""The store of a sweep: its Parquet files, their progress, and reading them."""
