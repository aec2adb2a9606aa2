"""What each `mmcl` command does. Imported by the command line only when the command runs."""
