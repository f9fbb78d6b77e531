"""A study's results as small files that can be committed, and gone on with: records, tables, page, and decisions in place of logits."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crossdistill.core.errors import StudyError
from crossdistill.core.observations import LevelDraw
from crossdistill.core.published import DECISIONS, Decisions, decisions_file, known_answers, published, save_decisions, save_set, set_file
from crossdistill.core.records import RunRecord
from crossdistill.core.store import locked, read_json, write_atomically
from crossdistill.core.types import Observations
from crossdistill.report.page import build_page
from crossdistill.report.sections import gallery, looks
from crossdistill.report.study_files import read_study
from crossdistill.study.folder import FAILURES_FILE, PLAN_FILE, STUDY_FILE, WEIGHTS_FILE, WEIGHTS_FOLDER
from crossdistill.study.phases import PHASES_FILE

TABLES = tuple(f"{name}.parquet" for name in ("results", "inheritance", "transfer", "similarity", "gains"))
OF_STUDY = (STUDY_FILE, PLAN_FILE, FAILURES_FILE)  # the first one tells whose folder it is, should the rest be killed
WHOLE = (*OF_STUDY, PHASES_FILE, WEIGHTS_FILE, *TABLES)  # in this order: tables are younger than the plan
FOLDERS = ("runs", "warm_ups", DECISIONS, "pictures", "probes", WEIGHTS_FOLDER)
WORK = ("observations", "instruments", "predictions", "runs/*/network.safetensors", "runs/*/checkpoint")
"""What no publication holds, but a folder in which a study is run."""


@dataclass(frozen=True)
class Published:
    """Where a study was published, and how large that is."""

    folder: Path
    n_networks: int
    n_bytes: int


def publish(out: Path, target: Path) -> Published:
    """Copy of a study's folder what a reader needs to `target`, and write decisions beside it; what is gone from `out` goes there too.

    `target` is new, empty, or an earlier publication of the same study. Whoever has it sees every result, and goes on with the study:
    `study run` on it trains only what is not finished. Each file is written whole or not at all, and the same call completes one
    that was killed. Raises StudyError where `out` holds no study, or one at work or without a finished network, and where
    `target` holds something else.
    """
    if not (out / PLAN_FILE).exists() or not (out / STUDY_FILE).exists():
        raise StudyError(f"{out} holds no study (no {PLAN_FILE}): give the folder that was --out of `crossdistill study run`")
    with locked(out, f"a study is running in {out}: publish it when that is done (`crossdistill study status {out}` shows how far it is)"):
        _refuse_other_content(out, target)
        copy = _Copy(out, target)
        names = copy.study(WHOLE)
        if not names:
            raise StudyError(f"nothing is finished in {out}, so that there is nothing to publish: `crossdistill study run` goes on with it")
        copy.pictures(names)
        if (out / WEIGHTS_FOLDER / PLAN_FILE).exists():
            copy.within(WEIGHTS_FOLDER).study(OF_STUDY)
        copy.delete_others()
    copy.written.add(build_page(target))  # from what was published alone, so that its readers draw the same one
    return Published(target, len(names), sum(path.stat().st_size for path in copy.written))


def _refuse_other_content(out: Path, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise StudyError(f"{target} is a file: give a new or empty folder, or an earlier publication of this study")
    if out.resolve() in (target.resolve(), *target.resolve().parents) or target.resolve() in out.resolve().parents:
        raise StudyError(f"{target} and {out} lie one in the other: publish to a folder of its own")
    if not target.exists() or all(child.name.startswith(".") for child in target.iterdir()):  # hidden: what a kill left, or git's
        return
    if not (target / STUDY_FILE).exists():
        raise StudyError(f"{target} is not empty and holds no publication: give a new or empty folder, or an earlier publication")
    here, there = (yaml.safe_load((folder / STUDY_FILE).read_text(encoding="utf-8")) for folder in (out, target))
    for name in ("name", "images"):
        if here.get(name) != there.get(name):
            raise StudyError(f"{target} holds another study ({name}: {there.get(name)}, not {here.get(name)}): publish to another folder")
    if at_work := next((path for pattern in WORK for path in target.glob(pattern)), None):
        raise StudyError(
            f"{target} holds {at_work.relative_to(target)}, which no publication does: a study was run there, whose files would be "
            "lost. Publish to another folder."
        )


@dataclass
class _Copy:
    """Copies one study from its folder to another, and knows what it wrote."""

    out: Path
    target: Path
    written: set[Path] = field(default_factory=set)

    def within(self, name: str) -> "_Copy":
        """The copy of a study that lies in a folder of this one."""
        return _Copy(self.out / name, self.target / name, self.written)

    def study(self, whole: Iterable[str]) -> list[str]:
        """Copy these files, the records and the decisions; the names of the finished networks. Where there are none, nothing is done."""
        plan = read_json(self.out / PLAN_FILE)
        names, warm_ups = _finished(self.out, plan), [task["run"] for task in plan["tasks"] if task["kind"] == "warm_up"]
        if not names:
            return []
        for file in whole:
            self._copy(file, always=True)
        for name in names:
            self._copy(f"runs/{name}/record.json")
            self._copy(f"runs/{name}/log.jsonl")
        for name in warm_ups:
            self._copy(f"warm_ups/{name}/record.json")
        self._decisions(names, plan.get("observations", {}))
        return names

    def pictures(self, names: Iterable[str]) -> None:
        """Copy the pictures of the probes, and of these networks those that the page has room for: others would only weigh."""
        study = read_study(self.out)
        of_names = replace(study, records=tuple(record for record in study.records if record.run in names))
        shown = looks.pictured(of_names) | gallery.pictured(of_names)
        for pattern in ("[!.]*", *(f"{name}/[!.]*" for name in sorted(shown))):
            self._copy_all(f"pictures/{pattern}")
        self._copy_all("probes/[!.]*/manifest.json")
        self._copy_all("probes/[!.]*/preview.png")

    def _copy_all(self, pattern: str) -> None:
        for path in sorted(self.out.glob(pattern)):
            if path.is_file():
                self._copy(str(path.relative_to(self.out)))

    def _copy(self, file: str, *, always: bool = False) -> None:
        if (self.out / file).exists():
            content = (self.out / file).read_bytes()
            self._write(self.target / file, lambda path: write_atomically(path, lambda stream: stream.write(content)), content, always)

    def _write(self, path: Path, write: Callable[[Path], object], content: bytes | None = None, always: bool = True) -> None:
        self.written.add(path)
        if always or not path.exists() or path.read_bytes() != content:
            write(path)

    def _decisions(self, names: Iterable[str], files: Mapping[str, str]) -> None:
        """The decisions of each network, and once for all networks what they are about."""
        sets: dict[str, dict[LevelDraw, Observations]] = {}
        chosen = yaml.safe_load((self.out / STUDY_FILE).read_text(encoding="utf-8")).get("observe", {}).get("instruments")
        for name in names:
            answers: dict[str, dict[LevelDraw, Any]] = {}
            for (test_set, level, draw), seen in known_answers(self.out, name, files).items():
                answers.setdefault(files[test_set], {})[level, draw] = seen.decisions
                of_set = sets.setdefault(files[test_set], {})
                if (level, draw) not in of_set:
                    of_set[level, draw] = _without_answers(seen)
                elif not _same_images(of_set[level, draw], seen):
                    raise StudyError(
                        f"{name} was shown other images or labels of {test_set} than the networks before it, under the same name: delete "
                        f"{self.out / 'observations' / name}, and `study run` observes it again"
                    )
            told = Decisions(answers, _measured(self.out, name, chosen), RunRecord.load(self.out / "runs" / name).weights)
            self._write(decisions_file(self.target, name), lambda path, told=told: save_decisions(path, told))
        for file, shown in sets.items():
            self._write(set_file(self.target, file), lambda path, shown=shown: save_set(path, shown))

    def delete_others(self) -> None:
        """Delete what an earlier publication held and this one does not, and what a kill left."""
        found = [path for folder in FOLDERS for path in (self.target / folder).rglob("*")]
        found += [self.target / file for file in WHOLE]
        found += [path for file in WHOLE for path in self.target.glob(f".{file}.*")]
        for path in found:
            if path.is_file() and path not in self.written:
                path.unlink()
        for path in sorted((path for path in found if path.is_dir()), reverse=True):  # the inner ones first
            if not any(path.iterdir()):
                path.rmdir()


def _finished(out: Path, plan: Mapping[str, Any]) -> list[str]:
    """The names of the finished networks of a plan, with the earlier weights of teachers that taught some of them."""
    planned = [task["run"] for task in (*plan["tasks"], *plan.get("ceilings", ())) if task["kind"] != "warm_up"]
    names = [name for name in planned if (out / "runs" / name / "record.json").exists()]
    teachers = [RunRecord.load(out / "runs" / name).teacher_run for name in names]
    taught = [name for name in teachers if name and (out / "runs" / name / "record.json").exists()]
    return list(dict.fromkeys([*names, *taught]))


def _measured(out: Path, run: str, chosen: Iterable[str] | None) -> tuple[str, ...]:
    """The files of what the chosen instruments (None: all) gave of a network, here or where it was published before."""
    told = published(out, run)
    files = {path.name for path in (out / "instruments" / run).glob("[!.]*.npz")} | set(told.instruments if told else ())
    return tuple(sorted(file for file in files if chosen is None or file.rpartition("-")[0] in chosen))


def _without_answers(seen: Observations) -> Observations:
    return Observations(seen.logits[:, :0].copy(), seen.labels, seen.index, seen.factors, seen.split)


def _same_images(a: Observations, b: Observations) -> bool:
    if a.split != b.split or a.factors.keys() != b.factors.keys():
        return False
    arrays = [(a.labels, b.labels), (a.index, b.index), *((a.factors[name], b.factors[name]) for name in a.factors)]
    return all(np.array_equal(of_a, of_b) for of_a, of_b in arrays)
