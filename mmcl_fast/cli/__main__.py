"""`python -m mmcl_fast.cli` is `mmcl`."""

from mmcl_fast.cli.command_line import main

if __name__ == "__main__":
    main()
