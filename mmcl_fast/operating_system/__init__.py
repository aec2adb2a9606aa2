"""What differs between operating systems: no other module asks which one it runs on.

`files` opens them, `memory` and `processors` tell what the machine has, `processes` starts, links
and ends them. They import the standard library alone, psutil off Linux, and nothing of ours.
"""

import sys

IS_LINUX = sys.platform == "linux"
IS_WINDOWS = sys.platform == "win32"

__all__ = ["IS_LINUX", "IS_WINDOWS"]
