"""What is kept: Parquet parts, how far they are, and what they hold."""
