"""Every picture, one file a command's; matplotlib is imported with the first.

drawn = plotting.draw("store", plotting.Picture(kind="lines", x="m", col="snr"))
drawn.figure.axes[0].set_ylim(0.5, 1.0)       # a matplotlib figure, to change at will
plotting.save(drawn.figure, Path("widths.svg"))
"""

from mmcl_fast.plotting.curves import figure1 as figure1
from mmcl_fast.plotting.curves import run_curves as run_curves
from mmcl_fast.plotting.curves import save as save
from mmcl_fast.plotting.figure_data import figure_data as figure_data
from mmcl_fast.plotting.picture import Picture as Picture
from mmcl_fast.plotting.sweep import Drawn as Drawn
from mmcl_fast.plotting.sweep import draw as draw
