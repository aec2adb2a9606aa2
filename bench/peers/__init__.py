"""What is measured against: other ways to train and other libraries' losses."""
