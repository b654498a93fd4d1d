"""Preference-optimisation algorithms, a page each, and the two loops that fit any of them.

`from trainers import ONPO` is cheap: torch is imported when a loss is first evaluated.
"""

from trainers.algorithm import Algorithm
from trainers.dpo import DPO
from trainers.inpo import INPO
from trainers.ipo_md import IPOMD
from trainers.omd import OMD
from trainers.onpo import ONPO
from trainers.slic import SLiC

__all__ = ["DPO", "INPO", "IPOMD", "OMD", "ONPO", "Algorithm", "SLiC"]
