"""The page's section on probes: a picture of each, and what to know before its figures are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crossdistill.core.records import GateStatus
from crossdistill.report.names import NOT_RUN, capitalised, plain
from crossdistill.report.pictures import data_uri, picture_size
from crossdistill.report.probe_files import Probe
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.words import count, listed, percent

TITLE, PLACE = "Probes", 70


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    return dict(probe_pictures=[probe_picture(study, probe) for probe in study.probes], unfolded=UNFOLDED)


UNFOLDED = 4
"""Probes whose pictures are open from the start."""

GATE_WORDS: dict[GateStatus, str] = {"passed": "signal gate passed", "failed": "signal gate failed", "not run": NOT_RUN}


@dataclass(frozen=True)
class ProbePicture:
    """A probe with its preview as a data address, and remarks in words."""

    probe: Probe
    address: str | None
    size: tuple[int, int] | None
    remarks: list[str]
    absent: str = ""  # why there is no picture


def probe_picture(study: StudyFiles, probe: Probe) -> ProbePicture:
    """What the page shows of a probe; without an address where no preview was stored, or it is damaged."""
    remarks = list(_remarks(study, probe))
    if probe.preview is None:
        return ProbePicture(probe, None, None, remarks, "No preview was stored for this probe.")
    try:
        return ProbePicture(probe, data_uri(probe.preview), picture_size(probe.preview), remarks)
    except OSError:
        absent = f"{probe.preview.parent.name}/{probe.preview.name} is damaged: `crossdistill study run` puts it back."
        return ProbePicture(probe, None, None, remarks, absent)


def short_remark(study: StudyFiles, probe: str) -> str:
    """Where the signal gate did not pass, for a place beside a chart: "signal gate failed at grid=8"; empty where it did."""
    places = _levels_by_gate(study, probe)
    return "; ".join(f"{GATE_WORDS[status]} at {listed(levels)}" for status, levels in places.items() if status != "passed" and levels)


def _remarks(study: StudyFiles, probe: Probe) -> Iterator[str]:
    if probe.control_of:
        yield f"It is a control of {plain(probe.control_of)}: read the two beside each other."
    if probe.n_dropped and probe.n_images and probe.n_kept is not None:
        yield (
            f"{count(probe.n_dropped, 'image')} of {probe.n_images:,} could not be treated and were left out; "
            f"{percent(probe.n_kept / probe.n_images)} remain, on which probe and clean accuracy are compared."
        )
    for status, levels in _levels_by_gate(study, probe.name).items():
        if levels:
            yield f"{capitalised(GATE_WORDS[status])} at {listed(levels)}."
    if probe.not_gated and NOT_RUN in short_remark(study, probe.name):
        yield f"{capitalised(NOT_RUN)}: {probe.not_gated}."
    for level in probe.level_names:
        gate = study.gates.get((probe.name, level))
        if gate and gate.reason:
            yield f"At {level}: {gate.reason}."
    for network in dict.fromkeys(record.student for record in study.records):
        if aligned := [level for level in probe.level_names if (network, probe.name, level) in study.token_aligned]:
            yield f"Token-aligned for {network} at {listed(aligned)}: tiles are whole patches of it, which favours it by construction."


def _levels_by_gate(study: StudyFiles, probe: str) -> dict[GateStatus, list[str]]:
    found = {level: gate.status for (name, level), gate in study.gates.items() if name == probe and level != "auc"}
    return {status: [level for level, of in found.items() if of == status] for status in GATE_WORDS}
