"""The pure losses, probes and metrics under stable names, for anyone's own loop."""

from crossdistill.methods._crd_memory import CRDMemory
from crossdistill.methods._logits import standardize_logits
from crossdistill.methods._vlfkd_seed import vlfkd_seed_losses as vlfkd_seed
from crossdistill.methods.attention_transfer import attention_transfer_loss as attention_transfer
from crossdistill.methods.capd import capd_attention, capd_discriminator, capd_features, capd_generator, capd_release, capd_value
from crossdistill.methods.correlation import correlation_loss as correlation
from crossdistill.methods.crd import crd_batch_losses as crd_batch
from crossdistill.methods.cskd import cskd_losses as cskd
from crossdistill.methods.deit import deit_loss as deit
from crossdistill.methods.dist import dist_loss as dist
from crossdistill.methods.dkd import dkd_loss as dkd
from crossdistill.methods.fitnet import fitnet_loss as fitnet
from crossdistill.methods.frequency_alignment import frequency_alignment_losses as frequency_alignment
from crossdistill.methods.kd import kd_loss as kd
from crossdistill.methods.ofa import ofa_loss as ofa
from crossdistill.methods.pkt import pkt_loss as pkt
from crossdistill.methods.rkd import rkd_loss as rkd
from crossdistill.methods.rsd import rsd_loss as rsd
from crossdistill.methods.similarity import similarity_loss as similarity
from crossdistill.methods.sskd import sskd_losses as sskd
from crossdistill.methods.vlfkd import c2vkd_losses as c2vkd
from crossdistill.metrics.accuracy import accuracy
from crossdistill.metrics.accuracy_residual import accuracy_residual
from crossdistill.metrics.agreement_kappa import agreement_kappa
from crossdistill.metrics.calibration import calibration
from crossdistill.metrics.cka import cka
from crossdistill.metrics.conditional_retention import conditional_retention
from crossdistill.metrics.confidence import confidence
from crossdistill.metrics.consistency_ceiling import consistency_ceiling
from crossdistill.metrics.cue_bias import cue_bias
from crossdistill.metrics.cue_choice import cue_choice
from crossdistill.metrics.cue_counts import cue_counts
from crossdistill.metrics.effective_receptive_field import effective_receptive_field
from crossdistill.metrics.error_consistency import error_consistency
from crossdistill.metrics.fidelity import fidelity
from crossdistill.metrics.inheritance import inheritance
from crossdistill.metrics.js_invariance import js_invariance
from crossdistill.metrics.mcnemar import mcnemar
from crossdistill.metrics.mean_attention_distance import mean_attention_distance
from crossdistill.metrics.retention import retention
from crossdistill.metrics.same_wrong_label import same_wrong_label
from crossdistill.metrics.seed_ratio import seed_ratio
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.metrics.side_with_teacher import side_with_teacher
from crossdistill.probes.amplitude_swap import amplitude_swap
from crossdistill.probes.corrupt import corrupt
from crossdistill.probes.cue_conflict import cue_conflict
from crossdistill.probes.edges import edges
from crossdistill.probes.grayscale import grayscale
from crossdistill.probes.high_pass import high_pass
from crossdistill.probes.hue import hue
from crossdistill.probes.localized_noise import localized_noise
from crossdistill.probes.low_pass import low_pass
from crossdistill.probes.patch_drop import patch_drop
from crossdistill.probes.scramble import scramble
from crossdistill.probes.shift import shift
from crossdistill.probes.silhouette import silhouette
from crossdistill.probes.stylized import stylized
from crossdistill.probes.superpixel import superpixel
from crossdistill.probes.texture_swap import texture_swap

__all__ = [
    "CRDMemory",
    "accuracy",
    "accuracy_residual",
    "agreement_kappa",
    "amplitude_swap",
    "attention_transfer",
    "c2vkd",
    "calibration",
    "capd_attention",
    "capd_discriminator",
    "capd_features",
    "capd_generator",
    "capd_release",
    "capd_value",
    "cka",
    "conditional_retention",
    "confidence",
    "consistency_ceiling",
    "correlation",
    "corrupt",
    "crd_batch",
    "cskd",
    "cue_bias",
    "cue_choice",
    "cue_conflict",
    "cue_counts",
    "deit",
    "dist",
    "dkd",
    "edges",
    "effective_receptive_field",
    "error_consistency",
    "fidelity",
    "fitnet",
    "frequency_alignment",
    "grayscale",
    "high_pass",
    "hue",
    "inheritance",
    "js_invariance",
    "kd",
    "localized_noise",
    "low_pass",
    "mcnemar",
    "mean_attention_distance",
    "ofa",
    "patch_drop",
    "pkt",
    "retention",
    "rkd",
    "rsd",
    "same_wrong_label",
    "scramble",
    "seed_ratio",
    "shape_bias",
    "shift",
    "side_with_teacher",
    "silhouette",
    "similarity",
    "sskd",
    "standardize_logits",
    "stylized",
    "superpixel",
    "texture_swap",
    "vlfkd_seed",
]
