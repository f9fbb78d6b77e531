"""The README of an export: a model card that says what the network is, what it inherited, and what is not known."""

from collections.abc import Mapping
from typing import Any

from crossdistill.core.records import CEILING, EARLIER_TEACHER, RunRecord
from crossdistill.export import facts
from crossdistill.export.latency import SIZE_COLUMNS, TIMING_COLUMNS, conditions, size_rows, timing_rows
from crossdistill.export.licences import licences, study_file
from crossdistill.export.markdown import Raw, code_block, escaped
from crossdistill.export.program import TOLERANCE
from crossdistill.export.student import Student
from crossdistill.export.written import Written
from crossdistill.report.words import count

MOST_CLASSES = 50

NOBODY_TAUGHT = "Nothing to tell: no method taught this network."
CONTROL = "Nothing to tell of this network by itself: it is a control, which the students of the method are compared with."
NOT_COMPARED = "Not known: the study has not compared this method with its controls yet (inheritance.parquet is missing or lacks it)."
NO_STUDY = "Not known: the file stands outside its study. Export the run's folder (STUDY/runs/ARM-KEY) to have the table here."


def card_text(student: Student, written: Written, found: Mapping[str, float], costs: Mapping[str, Any] | None) -> str:
    """The card's Markdown, without front matter. `found`: the differences at each batch size; `costs`: what latency.json holds."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    contrasts = facts.contrasts(student)
    environment = Environment(
        loader=PackageLoader("crossdistill.export", ""), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
        autoescape=False, finalize=escaped, keep_trailing_newline=True,  # Markdown has an escape of its own
    )  # fmt: skip
    return environment.get_template("card.md.j2").render(
        raw=Raw,
        title=student.label,
        about=_about(student),
        packages=Raw(" ".join(written.packages)),
        code=code_block(written.code, "python"),
        n_classes=student.network.n_classes,
        largest=f"{max(found.values()):.2g}",
        batches=", ".join(found),
        tolerance=f"{TOLERANCE:g}",
        on_hub=Raw('timm.create_model("hf-hub:OWNER/NAME", pretrained=True)') if written.library == "timm" else "",
        preprocessing=_preprocessing(student),
        classes=_classes(student),
        accuracies=facts.accuracies(student),
        not_observed="Not measured: the network has not been observed on test images." if student.study else NO_STUDY,
        gates=facts.gates(student),
        contrasts=contrasts,
        reasons=list(dict.fromkeys(row.why for row in contrasts if row.why)),
        no_contrasts=_no_contrasts(student),
        sizes=size_rows(costs) if costs else [],
        size_columns=SIZE_COLUMNS,
        timings=timing_rows(costs) if costs else [],
        timing_columns=TIMING_COLUMNS,
        conditions=conditions(costs) if costs else "",
        teacher_missing=costs["teacher_missing"] if costs else "",
        licences=licences(student),
        limits=facts.limits(student),
        provenance=_provenance(student),
        study_file=code_block(text, "yaml") if (text := study_file(student)) else "",
    )


def hub_card(student: Student, written: Written, text: str) -> str:
    """The card with the front matter that the Hugging Face Hub reads; the licence is "unknown", since none is recorded."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    row, settings = facts.clean_accuracy(student), student.study_settings.get("images", {})
    source = str(settings.get("source", "unknown"))
    measured = None
    if row is not None:
        measured = [
            EvalResult(
                task_type="image-classification", dataset_type=source, dataset_name=source, dataset_split="test", metric_type="accuracy",
                metric_value=row.value,
            )
        ]  # fmt: skip
    data = ModelCardData(
        library_name=written.library,
        license="unknown",
        pipeline_tag="image-classification",
        tags=["image-classification", "knowledge-distillation", "crossdistill"],
        model_name=student.label if measured else None,
        eval_results=measured,
        metrics=["accuracy"] if measured else None,
        base_model=_base_model(student),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def _base_model(student: Student) -> str | None:
    """The repository of the published weights that the student began from, where their full name is known."""
    if student.record is None:
        return None
    chosen = (student.study_settings.get("networks", {}).get(student.record.student)) or {}
    model = str(chosen.get("model") or "")
    return model if chosen.get("pretrained") and model.startswith("timm/") and "." in model else None


def _about(student: Student) -> list[str]:
    network, record = student.network, student.record
    family = "a CNN" if network.family == "cnn" else "a network of tokens"
    what = f"{network.model_name}, {family} with {network.n_parameters:,} parameters"
    readout = {
        "class": "Its class head makes the prediction.",
        "mean_heads": f"The mean of its heads ({', '.join(network.heads)}) makes the prediction.",
        "mean_heads_dense": f"The mean of its heads ({', '.join(network.heads)}) and of the dense logits makes the prediction.",
    }[network.readout]
    if record is None:
        return [f"{what}.", readout]
    more = [f"It is a control of the method ({record.control}), not a student to use."] if record.control else []
    more += [f"Its weights are not those of the last step: {record.evaluated_weights}."] if record.evaluated_weights != "last" else []
    if record.teacher is None or record.method is None:
        return [f"{what}, {_untaught(student, record)}.", *more, readout]
    settings = facts.method_settings(student)
    shown = f" ({settings})" if settings else ""
    taught = f"{what}, taught by {_teacher_model(student)} with the method {record.method}{shown}"
    sentence = f"{taught}, run seed {record.seed}, on {_images(student)}."
    return [sentence, *more, readout]


def _untaught(student: Student, record: RunRecord) -> str:
    """How a network came about that no method taught."""
    chosen = (student.study_settings.get("networks", {}).get(record.student)) or {}
    if chosen.get("checkpoint") and record.arm in ("teacher", EARLIER_TEACHER):
        return "taken as it was from a checkpoint file: how and on what it was trained is not recorded here"
    if record.arm == CEILING:
        return f"a control and not a network to use: trained on a probe's own images ({record.label}), to learn how much signal they carry"
    return f"trained without a teacher as {record.arm}, run seed {record.seed}, on {_images(student)}"


def _teacher_model(student: Student) -> str:
    assert student.record is not None
    chosen = (student.study_settings.get("networks", {}).get(student.record.teacher)) or {}
    model = chosen.get("model") or chosen.get("checkpoint") or "model not recorded"
    return f"{student.record.teacher} ({str(model).replace(chr(92), '/').rsplit('/', 1)[-1] if chosen.get('checkpoint') else model})"


def _images(student: Student) -> str:
    told = student.study.plan.get("images", {}) if student.study else {}
    if not told:
        return "images that are not recorded here"
    height, width = student.size
    return (
        f"{count(told.get('train', 0), 'training image')} of {told.get('source', 'an unnamed source')} "
        f"({height} x {width} px, {len(told.get('class_names', ())):,} classes)"
    )


def _preprocessing(student: Student) -> str:
    network = student.network
    mean, std = ([round(v, 4) for v in values.flatten().tolist()] for values in (network.mean, network.std))
    height, width = network.input_size
    return (
        f"RGB of 0 to 1, resized to {height} x {width} px (height x width; bilinear, antialiased, nothing cut off), "
        f"then minus {', '.join(map(str, mean))} and divided by {', '.join(map(str, std))}, channel by channel."
    )


def _classes(student: Student) -> str:
    names = student.class_names
    shown = "; ".join(names[:MOST_CLASSES])
    return f"{shown}; and {len(names) - MOST_CLASSES} more, all in config.json" if len(names) > MOST_CLASSES else shown


def _no_contrasts(student: Student) -> str:
    record = student.record
    if record is None or student.study is None:
        return NO_STUDY
    if record.method is None:
        return NOBODY_TAUGHT
    return CONTROL if record.control else NOT_COMPARED


def _provenance(student: Student) -> list[tuple[str, str]]:
    record = student.record
    found = [("Weights (SHA-256 of network.safetensors)", student.sha256)]
    if record is None:
        return found
    found = [("Study", student.study.name if student.study else "not at hand"), ("Run", record.run), *found]
    found += [("Teacher run", record.teacher_run)] if record.teacher_run else []
    found += [(f"Source of {name}", f"hash {source}") for name, source in record.plugins.items()]
    found += [("Software", ", ".join(f"{name} {version}" for name, version in record.software.items()))]
    return [*found, ("Trained on", ", ".join(f"{name} {value}" for name, value in record.hardware.items()))]
