"""Preference-optimisation algorithms, a page each, and the two loops that fit any of them.

`from trainers import ONPO` is cheap: torch is imported when a loss is first evaluated.
"""

from trainers.algorithm import Algorithm
from trainers.algorithms.dpo import DPO
from trainers.algorithms.egpo import EGPO
from trainers.algorithms.inpo import INPO
from trainers.algorithms.ipo import IPO
from trainers.algorithms.ipo_md import IPOMD
from trainers.algorithms.nash_md import NashMD
from trainers.algorithms.omd import OMD
from trainers.algorithms.omwu import OMWU
from trainers.algorithms.onpo import ONPO
from trainers.algorithms.rl import RL
from trainers.algorithms.self_play import SelfPlay
from trainers.algorithms.sft import SFT
from trainers.algorithms.simpo import SimPO
from trainers.algorithms.slic import SLiC
from trainers.algorithms.slic_hf import SLiCHF
from trainers.algorithms.sppo import SPPO

__all__ = [
    "DPO",
    "EGPO",
    "INPO",
    "IPO",
    "IPOMD",
    "OMD",
    "OMWU",
    "ONPO",
    "RL",
    "SFT",
    "SPPO",
    "Algorithm",
    "NashMD",
    "SLiC",
    "SLiCHF",
    "SelfPlay",
    "SimPO",
]
