"""The pure losses, probes and metrics under stable names, for anyone's own loop."""

from crossdistill.methods.kd import kd_loss as kd
from crossdistill.metrics.accuracy import accuracy
from crossdistill.metrics.fidelity import fidelity
from crossdistill.metrics.retention import retention
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.probes.localized_noise import localized_noise
from crossdistill.probes.scramble import scramble
from crossdistill.probes.superpixel import superpixel

__all__ = ["accuracy", "fidelity", "kd", "localized_noise", "retention", "scramble", "shape_bias", "superpixel"]
