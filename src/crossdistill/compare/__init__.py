"""From observations to the tables: what every network scored, and what its students inherited (torch-free)."""

from crossdistill.compare.contrasts import inheritance_table
from crossdistill.compare.gains import gain_table
from crossdistill.compare.gates import Gates, SignalGate, signal_gates
from crossdistill.compare.observed import Contrast, ObservedRun, Pair
from crossdistill.compare.pairs import pairs_table
from crossdistill.compare.results import results_table
from crossdistill.compare.similarity import similarity_table
from crossdistill.compare.tables import read_table, write_table
from crossdistill.compare.transfer import transfer_table

__all__ = [
    "Contrast",
    "Gates",
    "ObservedRun",
    "Pair",
    "SignalGate",
    "gain_table",
    "inheritance_table",
    "pairs_table",
    "read_table",
    "results_table",
    "signal_gates",
    "similarity_table",
    "transfer_table",
    "write_table",
]
