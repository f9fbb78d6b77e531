"""What `distill` and `evaluate` give back: trained modules, figures, and how both are shown."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from crossdistill.core.errors import StudyError
from crossdistill.core.records import InheritanceRow, PairRow, ResultRow, RunRecord
from crossdistill.models._build import load_network
from crossdistill.notebook.networks import bare
from crossdistill.ops.network import Network
from crossdistill.report.study_files import StudyFiles, read_study
from crossdistill.report.summary import Summary, evaluation_summary, study_summary


class _Shown:
    """Shown as a table: in a notebook as HTML, on a terminal as text."""

    @property
    def summary(self) -> Summary:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self.summary.as_html()

    def __repr__(self) -> str:
        return self.summary.as_text()


@dataclass(frozen=True, repr=False)
class Distilled(_Shown):
    """What stands in the folder of a distillation: `Distilled(folder)` reads it again in any session.

    Networks come on the CPU in eval mode. A network that was handed over as a module has to be handed over again in a new session,
    by the same call of `distill`, which finds all done.
    """

    folder: Path

    @cached_property
    def study(self) -> StudyFiles:
        """Everything that was written down, as the page reads it."""
        return read_study(Path(self.folder))

    @property
    def page(self) -> Path:
        """The page with everything that was found."""
        return Path(self.folder).resolve() / "report.html"

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The students of the method, one a seed."""
        pair = self.study.pairs[0]
        return tuple(sorted((record for record in self.study.records if record.arm in pair.taught_by), key=lambda record: record.seed))

    @property
    def results(self) -> tuple[ResultRow, ...]:
        """Every figure of every network, with its interval or the reason why there is none."""
        return self.study.results

    @property
    def inheritance(self) -> tuple[InheritanceRow, ...]:
        """Every difference between the students and those that they are compared with."""
        return self.study.inheritance

    @property
    def failures(self) -> dict[str, str]:
        """{training: why it failed}."""
        return dict(self.study.failures)

    @cached_property
    def students(self) -> dict[int, nn.Module]:
        """{seed: the trained student}."""
        return {record.seed: bare(self._loaded(record)) for record in self.records}

    @property
    def student(self) -> nn.Module:
        """The trained student of the first seed: a module of its own class, that takes normalised images; see `network`."""
        return bare(self.network)

    @cached_property
    def network(self) -> Network:
        """The student of the first seed with its resize, its normalisation and all of its heads: takes uint8 or [0, 1] images."""
        return self._loaded(self.records[0])

    @cached_property
    def independent(self) -> Network:
        """The same student of the same seed, trained without a teacher, as `network`."""
        seed = self.records[0].seed
        found = [record for record in self.study.records if (record.arm, record.seed) == ("independent", seed)]
        if not found:
            raise StudyError("there is no independent student of this seed: it failed, or `arms` leaves it out")
        return self._loaded(found[0])

    def _loaded(self, record: RunRecord) -> Network:
        return load_network(Path(self.folder) / "runs" / record.run / "network.safetensors").eval()

    @property
    def summary(self) -> Summary:
        return study_summary(self.study)


@dataclass(frozen=True, repr=False)
class Evaluation(_Shown):
    """Profiles of networks, and what each two of them have in common."""

    results: tuple[ResultRow, ...]
    pairs: tuple[PairRow, ...]

    @property
    def summary(self) -> Summary:
        return evaluation_summary(self.results)
