"""How large the page of a large study is, and how long it takes to draw: 60 runs on 12 probes of three levels, with all pictures.

    python benchmarks/page_size.py [--seeds 5] [--probes 12] [--keep FOLDER]

Two pairs (a token network and a convolutional one, each other's teacher), four methods, independents and teachers of every seed, so that
five seeds make 60 runs of 30 epochs. Answers are made up, 500 test images of 10 classes; tables are those that a study would
write. Pictures are crops of photographs, as heavy as those of real images: a preview of each probe, Grad-CAM and attention strips of
every run, a sheet of images for every student, probe and level.

The target is 5 MB. `megabytes_of` says where they are: of each section, of the pictures within them, and of charts. At any other size
than the full one nothing is written. `--keep` leaves the study and its page in a folder.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data, transform

from crossdistill.compare import (
    Contrast,
    ObservedRun,
    Pair,
    gain_table,
    inheritance_table,
    results_table,
    transfer_table,
    write_table,
)
from crossdistill.core.records import (
    EpochRow,
    EstimateModel,
    GainRow,
    InheritanceRow,
    ResultRow,
    RunRecord,
    SimilarityRow,
    TransferRow,
)
from crossdistill.core.types import Observations
from crossdistill.report.page import build_page
from crossdistill.study.map_pictures import write_sheet, write_strip

SEEDS, PROBES, IMAGES, CLASSES, EPOCHS, LEVELS = 5, 12, 500, 10, 30, 3
PICTURED, GAINED, SIDE = 12, 6, 32  # images of a strip and of a sheet, px
TARGET_MEGABYTES = 5.0
METHODS = ("kd", "dkd", "crd", "rkd")
PAIRS = [Pair(0, "vit", "cnn", METHODS), Pair(1, "cnn", "vit", METHODS)]
LAYERS = ("stage1", "stage2", "stage3", "stage4", "pooled")


def networks(seeds: int) -> Iterator[tuple[str, str, int, str | None]]:
    """(arm, network, seed, teacher) of each run."""
    for seed in range(seeds):
        for pair in PAIRS:
            yield "teacher", pair.teacher, seed, None
            yield "independent", pair.student, seed, None
            for method in METHODS:
                yield method, pair.student, seed, pair.teacher


def record(arm: str, network: str, seed: int, teacher: str | None) -> RunRecord:
    generator = np.random.default_rng([seed, *arm.encode()])
    rise = 0.85 - 0.6 * 0.85 ** np.arange(EPOCHS) + generator.normal(0, 0.01, EPOCHS)
    terms = {"ce": 1.0} | ({arm: 2.0} if teacher else {})
    history = [
        EpochRow(epoch=epoch, learning_rate=1e-3, loss=2.5 * (1 - a), terms={name: of * (1 - a) for name, of in terms.items()},
                 train_accuracy=a, validation_accuracy=a, seconds=12.0, images_per_second=4000.0)
        for epoch, a in enumerate(rise.tolist(), 1)
    ]  # fmt: skip
    return RunRecord(
        run=f"{arm}-{network}-{seed}", label=f"{arm}: {network}, seed {seed}", arm=arm, method=arm if teacher else None, teacher=teacher,
        teacher_run=f"teacher-{teacher}-{seed}" if teacher else None, student=network, model=f"small/{network}", family="cnn",
        readout="class", seed=seed, parameters=300_000, training={"epochs": EPOCHS}, history=history,
        estimates={"validation_accuracy": EstimateModel(value=history[-1].validation_accuracy)},
        timing={"seconds": 360.0, "seconds_per_epoch": 12.0, "images_per_second": 4000.0}, software={}, hardware={},
    )  # fmt: skip


def answers(record: RunRecord, n_probes: int) -> dict[tuple[str, str, int], Observations]:
    """A student is right where its teacher is more often than chance would have it."""
    labels = np.arange(IMAGES) % CLASSES
    shared = np.random.default_rng([record.seed, *(record.teacher or record.student).encode()])
    own = np.random.default_rng([*record.run.encode()])
    found = {}
    for place in range(-1, n_probes):
        for level in range(LEVELS if place >= 0 else 1):
            ease = shared.normal(size=IMAGES) if place < 0 or level == 0 else ease  # noqa: F821 (of the level before)
            logits = own.normal(size=(IMAGES, CLASSES)).astype(np.float32)
            logits[np.arange(IMAGES), labels] += 2.5 + 1.2 * ease - (0.4 + 0.1 * place) * (level + 1) * (place >= 0)
            name = ("clean", "") if place < 0 else (f"probe_{place}", f"strength={level + 1}")
            found[*name, 0] = Observations(logits, labels, np.arange(IMAGES))
    return found


@cache
def crops(side: int) -> np.ndarray:
    """uint8 [crops, 3, side, side] of photographs."""
    generator = np.random.default_rng(0)
    found = []
    for source in (data.astronaut(), data.coffee(), data.chelsea()):
        for _ in range(100):
            top, left = (generator.integers(edge - 160) for edge in source.shape[:2])
            found.append(255 * transform.resize(source[top : top + 160, left : left + 160], (side, side), anti_aliasing=True))
    return np.stack(found).astype(np.uint8).transpose(0, 3, 1, 2)


def photographs(n: int, side: int, generator: np.random.Generator) -> np.ndarray:
    return crops(side)[generator.integers(len(crops(side)), size=n)]


def write_study(folder: Path, seeds: int, n_probes: int) -> None:
    generator = np.random.default_rng(0)
    runs = [ObservedRun(of := record(*network), answers(of, n_probes)) for network in networks(seeds)]
    results = results_table(runs, PAIRS)
    contrasts = [Contrast(0, "kd", "probe_0"), Contrast(1, "crd", "probe_1")]
    write_table(results, folder / "results.parquet", ResultRow)
    write_table(inheritance_table(results, runs, PAIRS, contrasts), folder / "inheritance.parquet", InheritanceRow)
    write_table(transfer_table(results, runs, PAIRS), folder / "transfer.parquet", TransferRow)
    write_table(gain_table(runs, PAIRS), folder / "gains.parquet", GainRow)
    write_table(list(similarities([run.record for run in runs])), folder / "similarity.parquet", SimilarityRow)
    for run in runs:
        run.record.save(folder / "runs" / run.record.run)
        write_pictures(folder / "pictures" / run.record.run, run.record, n_probes, generator)
    write_strip(folder / "pictures" / "images.webp", photographs(PICTURED, SIDE, generator))
    for place in range(n_probes):
        write_probe(folder / "probes" / f"probe_{place}-0123abcd", f"probe_{place}", generator)
    pairs = [{"index": p.index, "teacher": p.teacher, "student": p.student, "methods": METHODS} for p in PAIRS]
    tasks = [{"key": run.record.run, "kind": "train", "label": run.record.label, "run": run.record.run} for run in runs]
    images = {
        "source": "made up",
        "train": 50_000,
        "test": IMAGES,
        "size": [SIDE, SIDE],
        "class_names": [f"class {n}" for n in range(CLASSES)],
    }
    plan = {"format": 1, "name": "large", "pairs": pairs, "tasks": tasks, "images": images, "one_teacher_checkpoint": False}
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "study.yaml").write_text("name: large\n")


def similarities(records: list[RunRecord]) -> Iterator[SimilarityRow]:
    for of in records:
        if of.arm == "teacher":
            continue
        alone = [r.run for r in records if (r.arm, r.student, r.seed) == ("independent", of.student, of.seed) and of.teacher]
        teacher = of.teacher_run or f"teacher-{'vit' if of.student == 'cnn' else 'cnn'}-{of.seed}"
        for other in (teacher, *alone):
            for a in LAYERS:
                for b in LAYERS:
                    numbers = dict(value=0.5, low=0.4, high=0.6, n=256, status="ok", reason=None)
                    yield SimilarityRow.model_validate(dict(a=of.run, b=other, layer_a=a, layer_b=b, **numbers))


def write_pictures(folder: Path, of: RunRecord, n_probes: int, generator: np.random.Generator) -> None:
    for name in ("grad_cam", "attention_rollout"):
        write_strip(folder / f"{name}.webp", photographs(PICTURED, SIDE, generator))
    if of.teacher is None:
        return
    sets = []
    for place in range(LEVELS * n_probes):
        name, rows = f"gained-{place}.webp", [photographs(GAINED, SIDE, generator) for _ in range(2)]
        told = [
            {"id": str(n), "label": "class 1", "teacher": "class 1", "student": "class 1", "independent": "class 2"} for n in range(GAINED)
        ]
        level = {"probe": f"probe_{place // LEVELS}", "level": f"strength={place % LEVELS + 1}", "found": 30, "file": name}
        sets.append(level | {"tile": write_sheet(folder / name, rows), "gap": 4, "images": told})
    facts = {"format": 1, "arm": of.arm, "seed": of.seed, "teacher": of.teacher_run, "sets": sets}
    (folder / "gains.json").write_text(json.dumps(facts))


def write_probe(folder: Path, name: str, generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    levels = [{"name": f"strength={level + 1}"} for level in range(LEVELS)]
    manifest = {"probe": name, "isolates": "A cue of its own.", "levels": levels, "draws": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows = [np.concatenate(list(photographs(1 + LEVELS, SIDE, generator)), axis=2).repeat(3, 1).repeat(3, 2) for _ in range(7)]
    Image.fromarray(np.concatenate(rows, axis=1).transpose(1, 2, 0)).save(folder / "preview.png")


def where(html: str) -> dict[str, float]:
    """Megabytes of each section, and of pictures and charts in all of them."""
    sections = {found[1]: len(found[0]) for found in re.finditer(r'<section id="([^"]*)".*?</section>', html, flags=re.DOTALL)}
    kinds = {"pictures": r"data:image/webp[^\"]*", "charts": r'<svg class="chart".*?</svg>'}
    within = {name: sum(map(len, re.findall(pattern, html, flags=re.DOTALL))) for name, pattern in kinds.items()}
    return {name: round(size / 1e6, 3) for name, size in {**sections, **within}.items()}


def measured(folder: Path, seeds: int, n_probes: int) -> dict[str, Any]:
    write_study(folder, seeds, n_probes)
    start = time.perf_counter()
    page = build_page(folder)
    seconds = time.perf_counter() - start
    megabytes = page.stat().st_size / 1e6
    return {
        "runs": len(list(networks(seeds))),
        "probes": n_probes,
        "levels": LEVELS,
        "megabytes": megabytes,
        "megabytes_of": where(page.read_text(encoding="utf-8")),
        "seconds": seconds,
        "target_megabytes": TARGET_MEGABYTES,
        "met": megabytes <= TARGET_MEGABYTES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each arm; %(default)s where not said")
    parser.add_argument("--probes", type=int, default=PROBES, help="probes; %(default)s where not said")
    parser.add_argument("--keep", type=Path, help="an empty folder for the study and its page")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        figures = measured(asked.keep or Path(aside), asked.seeds, asked.probes)
    if (asked.seeds, asked.probes) == (SEEDS, PROBES):
        from protocol import save_result

        save_result("page_size", figures)
    else:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
