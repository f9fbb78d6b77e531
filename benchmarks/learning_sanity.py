"""Does every method learn, and learn from its teacher? Small networks, few images, a few epochs, several seeds a method.

    python benchmarks/learning_sanity.py --images parquet:PATH --work DIR --name "CIFAR-10, JPEG copy"

For each method, in the direction it was published for: students of the method, of the method with the teacher permuted across
classes (an image of class c gets the teacher's answers for an image of class pi(c): a check of the harness), of the method
with the teacher's answers exchanged within the classes (`shuffled_teacher`), the `twin` where the method changes the student
or its inputs, and the independent, which all methods of a direction share. Arms of one seed start from the same weights and see
the same batches. Fidelity is the share of validation images on which student and teacher give the same answer.

Four checks: the method's own loss (all terms but `ce`, weighted as published) is lower in the last epoch than in the first;
accuracy is above twice chance; fidelity is above the independent's; with the permuted teacher, fidelity to the true one is at
most 2 points above the independent's. Beside them stands the linear CKA of the pooled features with the teacher's, which is what
methods that match relations between images act on. All are about means over the seeds; the figures of every seed stand beside them. Only
validation images, cut from the training split, are looked at. The published weights were made for hundreds of epochs: where a
method's own terms drown the labels in a few, `--weight 0.1` shows whether it acts.

Each finished student leaves a file in DIR, so a stopped run goes on where it was. A method whose file (or helper beside it) was
edited is trained anew; after an edit of the engine or of `ops`, take another DIR. With all methods and the default sizes, just under
an hour of one core.
"""

import argparse
import ast
import inspect
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.registry import Plugin
from crossdistill.core.seeds import permutation, torch_seed
from crossdistill.core.store import digest, locked, read_json, write_atomically, write_json
from crossdistill.core.types import ImageSet, Needs, Observations
from crossdistill.images._raw import ranges
from crossdistill.images._splits import load_splits, parse_source, stratified_rows
from crossdistill.metrics.fidelity import fidelity
from crossdistill.models._build import build_network, load_network, save_network
from crossdistill.observe import observe
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.study.networks import placed, spread
from crossdistill.study.splits import fingerprint
from crossdistill.train.loop import ENGINE, Training
from crossdistill.train.objective import ROOT_TERM, Objective, make_objective, method_weights, plugin_views, published_weights
from crossdistill.train.partners import same_class_partners
from crossdistill.train.precision import resolved_precision
from protocol import save_result

NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {"model": "small/resnet8"},
    "vit": {"model": "small/vit", "settings": {"width": 64, "depth": 4}},
}
RECIPE: dict[str, Any] = {"batch_size": 64, "learning_rate": 2e-3, "threads": 1}
SETTINGS: dict[str, dict[str, Any]] = {"sskd": {"warm_up_epochs": 5}}  # where the published ones are out of proportion here
PERMUTED_MARGIN = 0.02
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Student:
    """One network to be trained: `arm` is independent, method, permuted, shuffled_teacher or twin."""

    teacher: str
    student: str
    arm: str
    seed: int
    method: str | None = None

    @property
    def name(self) -> str:
        return "-".join(filter(None, [f"{self.teacher}_to_{self.student}", self.method, self.arm, str(self.seed)]))

    @property
    def who(self) -> tuple[int, str, int]:
        """What random decisions are keyed by: the arm is absent, so that arms are paired by seed."""
        return (0, "student", self.seed)


class Bench:
    """Images, teachers and finished students of one set of options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.work, self.progress = options, options.work, Progress()
        source, settings = parse_source(options.images)
        self.splits = load_splits(source, settings, train_images=options.teacher_images, validation_images=options.validation_images)
        rows = stratified_rows(np.asarray(self.splits.train.labels), options.train_images, "learning sanity", "students")
        self.train = self.splits.train.subset(rows)
        self.validation = self.splits.validation
        self.few = spread(self.validation, 100)  # what the loop itself looks at after each epoch, which is used for nothing
        self.recipe = TrainingConfig(**RECIPE, epochs=options.epochs)
        self.teachers: dict[str, Network] = {}
        self.answered: dict[str, Observations] = {}
        self.pooled: dict[str, torch.Tensor] = {}
        self.warmed: dict[str, nn.Module] = {}

    @cached_property
    def shared_key(self) -> list[Any]:
        """What changes every network alike."""
        o = self.options
        return [ENGINE, fingerprint(self.splits), RECIPE, o.teacher_images, o.teacher_epochs, o.validation_images]

    def teacher(self, family: str) -> Network:
        """The frozen teacher of a family, trained on first use and kept in the work folder."""
        if family not in self.teachers:
            path = self.work / "teachers" / f"{family}-{digest([self.shared_key, NETWORKS[family]])}.safetensors"
            if not path.exists():
                self._train_teacher(family, path)
            self.teachers[family] = frozen(placed(load_network(path), CPU))
        return self.teachers[family]

    def _train_teacher(self, family: str, path: Path) -> None:
        network = self.build(family, (0, "teacher", 0))
        recipe = self.recipe.model_copy(update={"epochs": self.options.teacher_epochs})
        training = Training(
            network, self.splits.train, self.few, recipe, who=(0, "teacher", 0), folder=self.work / "training" / path.stem,
            progress=self.progress, description=f"teacher {family}",
        )  # fmt: skip
        training.run()
        save_network(network, path, class_names=self.train.class_names)
        shutil.rmtree(training.folder)

    def build(self, family: str, who: tuple[Any, ...], method: str | None = None) -> Network:
        """The untrained network, keyed by `who`; with the tokens or heads of the method where one is given."""
        torch.manual_seed(torch_seed(*who, "initialisation"))
        network = build_network(NETWORKS[family]["model"], self.train.n_classes, self.train.size, settings=NETWORKS[family].get("settings"))
        if method:
            plugin = registry.get("method", method)
            if prepare := plugin.facts["prepare_student"]:
                prepare(network, plugin.complete(SETTINGS.get(method, {})))
        return placed(network, CPU)

    def answers(self, family: str) -> Observations:
        """What the teacher of a family answers on the validation images."""
        if family not in self.answered:
            self.answered[family] = observe(self.teacher(family), self.validation, split="validation")
        return self.answered[family]

    def pooled_of_teacher(self, family: str) -> torch.Tensor:
        """The teacher's pooled features of the validation images."""
        if family not in self.pooled:
            self.pooled[family] = pooled(self.teacher(family), self.validation)
        return self.pooled[family]

    def warm(self, method: str, family: str) -> nn.Module | None:
        """What the method trains on the teacher before any student, frozen; None where it trains nothing."""
        plugin, teacher = registry.get("method", method), self.teacher(family)
        warm_up = plugin.facts["warm_up"]
        if warm_up is None:
            return None
        name = f"{method}-{family}-{digest([self.shared_key, self.options.train_images, method_key(method)])}"
        if name not in self.warmed:
            settings, path = plugin.complete(SETTINGS.get(method, {})), self.work / "warm_ups" / f"{name}.safetensors"
            torch.manual_seed(torch_seed(0, "warm_up", 0, "initialisation"))
            module = warm_up.make(teacher, settings)
            if not path.exists():
                recipe = TrainingConfig(**{**RECIPE, **warm_up.recipe(settings)})
                objective = Objective(module, None, Needs(student_taps=warm_up.taps), warm_up.views)
                training = Training(
                    teacher, self.train, self.few, recipe, who=(0, "warm_up", 0), folder=self.work / "training" / name, objective=objective,
                    progress=self.progress, description=f"warm-up of {method} on {family}",
                )  # fmt: skip
                training.run()
                write_atomically(path, lambda file: file.write(save(module.state_dict())))
                shutil.rmtree(training.folder)
            module.load_state_dict(load_file(path))
            self.warmed[name] = frozen(module)
        return self.warmed[name]

    def record(self, student: Student) -> Path:
        """The file that the finished student leaves."""
        networks = [NETWORKS[student.teacher], NETWORKS[student.student]]
        method = [*method_key(student.method), self.options.weight] if student.method else None
        key = digest([self.shared_key, networks, self.options.train_images, self.options.epochs, method])
        return self.work / "students" / f"{student.name}-{key}.json"

    def train_student(self, student: Student) -> None:
        """Train one student and leave its record."""
        watch = Stopwatch()
        network = self.build(student.student, student.who, student.method)
        objective, taught = self._objective(student, network)
        training = Training(
            network, self.train, self.few, self.recipe, who=student.who, folder=self.work / "training" / self.record(student).stem,
            objective=objective, teacher=self.teacher(student.teacher) if taught else None, partners=self._partners(student),
        )  # fmt: skip
        history = training.run()
        answers = observe(network, self.validation, split="validation")
        to_teacher = fidelity(answers.logits, self.answers(student.teacher).logits)
        cka = linear_cka(pooled(network, self.validation), self.pooled_of_teacher(student.teacher))
        ends = {term: [row.terms[term] for row in (history[0], history[-1])] for term in history[0].terms}
        weights = objective.weights or {}
        own = [sum(weights[term] * ends[term][end] for term in weights if term != ROOT_TERM) for end in (0, 1)] if taught else None
        write_json(self.record(student), {
            "accuracy": float((answers.decisions == answers.labels).mean()),
            "fidelity": to_teacher["agreement"].value,
            "kl_to_teacher": to_teacher["kl"].value,
            "cka_to_teacher": cka,
            "own_loss": own,
            "terms_first_and_last": ends,
            "seconds": watch.seconds,
        })  # fmt: skip
        shutil.rmtree(training.folder)

    def _objective(self, student: Student, network: Network) -> tuple[Objective, bool]:
        """What the student learns from, and whether a teacher is part of it."""
        if student.method is None:
            return Objective(), False
        plugin = registry.get("method", student.method)
        settings = plugin.parse(SETTINGS.get(student.method, {}))
        if student.arm == "twin":
            return Objective(views=plugin_views(plugin, settings)), False
        warm = self.warm(student.method, student.teacher)
        rng = torch.Generator().manual_seed(torch_seed(*student.who, "objective"))
        torch.manual_seed(torch_seed(*student.who, "auxiliary"))
        objective = make_objective(
            plugin, settings, method_weights(published_weights(plugin, settings), weight=self.options.weight, weights={}),
            student=network, teacher=self.teacher(student.teacher),
            images=self.train, rng=rng, warm=warm,
        )  # fmt: skip
        return objective, True

    def _partners(self, student: Student) -> np.ndarray | None:
        labels = np.asarray(self.train.labels)
        if student.arm == "permuted":
            return other_class_partners(labels, self.train.n_classes, *student.who)
        return same_class_partners(labels, *student.who) if student.arm == "shuffled_teacher" else None


@torch.no_grad()
def pooled(network: Network, images: ImageSet) -> torch.Tensor:
    """The vectors that enter the classifier: float64 [images, channels]."""
    network.eval()
    parts = [network(torch.from_numpy(images.images[rows]), taps=("pooled",)).pooled for rows in ranges(len(images))]
    return torch.cat([part for part in parts if part is not None]).double()


def linear_cka(a: torch.Tensor, b: torch.Tensor) -> float:
    """How alike two networks arrange the same images, 0 to 1 (Kornblith et al., ICML 2019, equation 3), of features [images, channels]."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))


def other_class_partners(labels: np.ndarray, n_classes: int, *who: Any) -> np.ndarray:
    """For each image of class c an image of class (c + n_classes // 2) mod n_classes, in an order keyed by `who`."""
    order = permutation(len(labels), *who, "permuted teacher")
    partners = np.empty(len(labels), np.int64)
    for label in range(n_classes):
        rows = np.flatnonzero(labels == label)
        partners[rows] = np.resize(order[labels[order] == (label + n_classes // 2) % n_classes], len(rows))
    return partners


@cache
def method_key(name: str) -> list[Any]:
    """Settings and code of a method: of its file, and of the helpers in `methods` that it uses."""
    waiting, sources = [inspect.getmodule(registry.get("method", name).function)], {}
    while waiting:
        module = waiting.pop()
        if module is None or module.__name__ in sources:
            continue
        sources[module.__name__] = ast.dump(ast.parse(inspect.getsource(module)))
        used = {str(getattr(value, "__module__", "")) for value in vars(module).values()}
        waiting += [sys.modules[name] for name in used if name.startswith("crossdistill.methods.")]
    return [SETTINGS.get(name, {}), digest(sources)]


def directions(plugin: Plugin, *, both: bool) -> list[tuple[str, str]]:
    """(teacher, student): the direction that the method was published for, CNN to ViT where it says so; with `both`, the other too."""
    to_vit, to_cnn = ("cnn", "vit"), ("vit", "cnn")
    published, other = (to_vit, to_cnn) if plugin.facts["direction"].startswith("CNN") else (to_cnn, to_vit)
    return [published, other] if both else [published]


def independents(direction: tuple[str, str], options: argparse.Namespace) -> list[Student]:
    return [Student(*direction, "independent", seed) for seed in range(options.seeds)]


def students(plugin: Plugin, direction: tuple[str, str], options: argparse.Namespace) -> Iterator[Student]:
    """Every student of a method in one direction, seed by seed."""
    changes_student = plugin.facts["prepare_student"] or plugin.facts["views"]
    controls = ["shuffled_teacher", *(["twin"] if changes_student else [])]  # for the others the independent is the twin
    for seed in range(options.seeds):
        for arm in ["method", "permuted", *(controls if seed < options.control_seeds else [])]:
            yield Student(*direction, arm, seed, plugin.name)


def train_all(bench: Bench, wanted: Sequence[Student]) -> dict[tuple[str, str, str], Exception]:
    """Train the students that are not finished; what went wrong, by (method, teacher, student): its other students are left out."""
    failed: dict[tuple[str, str, str], Exception] = {}
    waiting = [student for student in wanted if not bench.record(student).exists()]
    for position, student in enumerate(waiting):
        subject = (student.method or "", student.teacher, student.student)
        if subject in failed:
            continue
        try:
            bench.train_student(student)
        except Exception as error:  # one method's bug must not cost the others' figures: it stands in the result as a failure
            if student.method is None:
                raise
            failed[subject] = error
            bench.progress.line(f"{student.name}: {type(error).__name__}: {error}")
            continue
        figures = read_json(bench.record(student))
        left = seconds_left(bench, wanted, waiting[position + 1 :])
        bench.progress.line(
            f"[{len(wanted) - len(waiting) + position + 1}/{len(wanted)}] {student.name}: accuracy {100 * figures['accuracy']:.1f} %, "
            f"fidelity {100 * figures['fidelity']:.1f} %, {figures['seconds']:.0f} s; about {left / 60:.0f} min left"
        )
    return failed


def seconds_left(bench: Bench, wanted: Sequence[Student], waiting: Sequence[Student]) -> float:
    """Each waiting student as long as a finished one of its method and direction, or as the mean of all."""
    seconds = {student: read_json(path)["seconds"] for student in wanted if (path := bench.record(student)).exists()}
    known = {(student.method, student.teacher): value for student, value in seconds.items()}
    return sum(known.get((student.method, student.teacher), np.mean(list(seconds.values()))) for student in waiting)


def spread_of(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "low": min(values), "high": max(values), "seeds": list(values)}


def method_row(bench: Bench, method: str, direction: tuple[str, str], error: Exception | None) -> dict[str, Any]:
    """The figures and checks of one method in one direction."""
    plugin, options = registry.get("method", method), bench.options
    row: dict[str, Any] = {"method": method, "teacher": direction[0], "student": direction[1], "settings": SETTINGS.get(method, {})}
    if error:
        published = directions(plugin, both=False) == [direction]
        refused = isinstance(error, SettingError) and not published
        return {**row, "error": f"{type(error).__name__}: {error}", "checks": {} if refused else {"trained": False}}
    records: dict[str, list[Any]] = {}
    for student in [*independents(direction, options), *students(plugin, direction, options)]:
        records.setdefault(student.arm, []).append(read_json(bench.record(student)))
    values = {arm: [record["fidelity"] for record in of_arm] for arm, of_arm in records.items()}
    own = [float(np.mean([record["own_loss"][end] for record in records["method"]])) for end in (0, 1)]
    gains = [ours - theirs for ours, theirs in zip(values["method"], values["independent"], strict=True)]
    accuracy = {arm: spread_of([record["accuracy"] for record in of_arm]) for arm, of_arm in records.items()}
    permuted = float(np.mean(values["permuted"]) - np.mean(values["independent"]))
    return {
        **row,
        "own_loss": {"first_epoch": own[0], "last_epoch": own[1], "seeds_in_which_it_falls": sum(
            record["own_loss"][1] < record["own_loss"][0] for record in records["method"])},
        "terms_first_and_last": [record["terms_first_and_last"] for record in records["method"]],
        "accuracy": accuracy,
        "fidelity": {arm: spread_of(of_arm) for arm, of_arm in values.items()},
        **{
            figure: {arm: spread_of([record[figure] for record in of_arm]) for arm, of_arm in records.items()}
            for figure in ("kl_to_teacher", "cka_to_teacher")
        },
        "fidelity_above_independent": {**spread_of(gains), "all_seeds": min(gains) > 0},
        "seconds": {arm: float(np.mean([record["seconds"] for record in of_arm])) for arm, of_arm in records.items()},
        "checks": {
            "own_loss_falls": own[1] < own[0],
            "accuracy_above_twice_chance": accuracy["method"]["mean"] > 2 / bench.train.n_classes,
            "fidelity_above_independent": float(np.mean(gains)) > 0,
            "permuted_at_most_2_points_above_independent": permuted <= PERMUTED_MARGIN,
        },
    }  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: percent, mean over seeds (lowest to highest)."""
    arms = ["method", "independent", "permuted", "shuffled_teacher", "twin"]
    fidelities = [f"fidelity: {arm}" for arm in arms]
    heads = ["method", "pair", "own loss", "accuracy", *fidelities, "above independent", "CKA", "CKA of independent", "checks"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        failed = [name for name, met in row["checks"].items() if not met]
        start, end = [row["method"], f"{row['teacher']} to {row['student']}"], "failed: " + ", ".join(failed) if failed else "met"
        if "error" in row:
            lines.append([*start, row["error"].replace("|", "/"), *[""] * 9, end if failed else "refused"])
            continue
        own, gain = row["own_loss"], row["fidelity_above_independent"]
        cells = [percent(row["accuracy"]["method"]), *(percent(row["fidelity"].get(arm)) for arm in arms)]
        above = f"{100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        cka = [percent(row["cka_to_teacher"][arm]) for arm in ("method", "independent")]
        lines.append([*start, f"{own['first_epoch']:.3g} to {own['last_epoch']:.3g}", *cells, above, *cka, end])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def percent(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return ""
    extent = f" ({100 * spread['low']:.1f} to {100 * spread['high']:.1f})" if len(spread["seeds"]) > 1 else ""
    return f"{100 * spread['mean']:.1f}{extent}"


def failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{row['method']} ({row['teacher']} to {row['student']}): {name}" for row in rows for name, met in row["checks"].items() if not met
    ]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", required=True, help="a source, such as parquet:PATH")
    parser.add_argument("--work", required=True, type=Path, help="a folder for teachers and finished students")
    parser.add_argument("--name", help="what the result calls the images (default: the kind of source)")
    parser.add_argument("--methods", nargs="+", default=registry.names("method"), help="default: all")
    parser.add_argument("--weight", type=float, default=1.0, help="multiplies the published weight of every term but `ce` (default 1)")
    parser.add_argument("--result", help="name of the result file (default: learning_sanity for all methods, else none is written)")
    parser.add_argument("--both", action="store_true", help="every method in both directions")
    for option, default in {
        "train-images": 2000, "epochs": 5, "seeds": 3, "control-seeds": 1, "teacher-images": 12_000, "teacher-epochs": 8,
        "validation-images": 2000,
    }.items():  # fmt: skip
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    chosen = parser.parse_args()
    if chosen.epochs < 2:
        parser.error(f"--epochs must be at least 2, since the loss of the last is compared with that of the first; got {chosen.epochs}")
    if chosen.train_images > chosen.teacher_images:
        parser.error(f"students learn from some of the teacher's {chosen.teacher_images} images, got --train-images {chosen.train_images}")
    return chosen


def main() -> None:
    chosen = options()
    torch.set_num_threads(1)
    with locked(chosen.work, f"another run is at work in {chosen.work}: wait for it, or choose another --work"):
        bench = Bench(chosen)
        subjects = [(name, pair) for name in chosen.methods for pair in directions(registry.get("method", name), both=chosen.both)]
        shared = [student for pair in dict.fromkeys(pair for _, pair in subjects) for student in independents(pair, chosen)]
        of_methods = [student for name, pair in subjects for student in students(registry.get("method", name), pair, chosen)]
        for teacher in dict.fromkeys(student.teacher for student in shared):
            bench.answers(teacher)
        failed = train_all(bench, [*shared, *of_methods])
        rows = [method_row(bench, name, pair, failed.get((name, *pair))) for name, pair in subjects]
        teachers = {family: float((answers.decisions == answers.labels).mean()) for family, answers in bench.answered.items()}
    figures = {
        "images": chosen.name or parse_source(chosen.images)[0],
        **{name: value for name, value in vars(chosen).items() if name not in ("images", "work", "name", "methods", "result")},
        "networks": NETWORKS,
        "recipe": RECIPE,
        "precision": resolved_precision("auto", CPU),
        "teacher_validation_accuracy": teachers,
        "rows": rows,
        "failed_checks": failures(rows),
    }
    complete = set(chosen.methods) >= set(registry.names("method"))
    if name := chosen.result or ("learning_sanity" if complete else None):
        save_result(name, figures)
    print(table(rows))
    print("\nFailed checks: " + ("; ".join(figures["failed_checks"]) or "none"))


if __name__ == "__main__":
    main()
