"""`python -m mmcl_fast.cli` is `mmcl`."""

from mmcl_fast.cli import main

if __name__ == "__main__":
    main()
