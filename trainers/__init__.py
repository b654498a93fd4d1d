"""Preference-optimisation algorithms, a page each, and the two loops that fit any of them.

`from trainers import ONPO` is cheap: torch is imported when a loss is first evaluated.
"""

from trainers.algorithm import Algorithm
from trainers.dpo import DPO
from trainers.egpo import EGPO
from trainers.inpo import INPO
from trainers.ipo import IPO
from trainers.ipo_md import IPOMD
from trainers.nash_md import NashMD
from trainers.omd import OMD
from trainers.omwu import OMWU
from trainers.onpo import ONPO
from trainers.rl import RL
from trainers.self_play import SelfPlay
from trainers.sft import SFT
from trainers.simpo import SimPO
from trainers.slic import SLiC
from trainers.slic_hf import SLiCHF
from trainers.sppo import SPPO

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
