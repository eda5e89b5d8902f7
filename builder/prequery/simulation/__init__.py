"""A simulated fleet: real HTTP, TGI's protocol or raw completions, and no model behind it.

It answers with English-looking words that mean nothing. Lengths, speed, queueing and faults are
those of its settings, and each is a function of the request alone, so a build against it repeats
byte for byte. It rehearses a build before it is paid for, and it is what our benchmarks ask.
"""

from prequery.simulation.process import SimulatedFleet, simulate
from prequery.simulation.settings import Counters, Faults, Lengths, Machine, Settings

__all__ = [
    "Counters",
    "Faults",
    "Lengths",
    "Machine",
    "Settings",
    "SimulatedFleet",
    "simulate",
]
