"""The command line. Each command imports what it runs inside its body, so that `--help` answers at once.

Exit codes: 0 done; 2 the user can mend it (one message, no traceback); 1 a defect of ours; 130 interrupted, by Ctrl-C or by
the SIGTERM of a scheduler (state saved).
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossdistill.cli_list import list_plugins
from crossdistill.cli_options import (
    Device,
    Devices,
    Encoder,
    Images,
    Json,
    Masks,
    Out,
    Preset,
    Probes,
    Quiet,
    SomeImages,
    Store,
    StudyFolder,
    Styles,
    chosen_store,
    new_progress,
)
from crossdistill.cli_probes import probes_app
from crossdistill.cli_study import run, study_app
from crossdistill.cli_tables import cell, print_table

if TYPE_CHECKING:
    from crossdistill.study.decisions import Evaluated

app = typer.Typer(
    help="Distil a vision teacher into a student of another architecture, and say what it inherited.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(study_app, name="study")
app.add_typer(probes_app, name="probes")

MENDABLE = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR}


@app.command()
def demo(
    out: Out = Path("crossdistill-demo"), device: Device = "auto", store: Store = None, quiet: Quiet = False, devices: Devices = None
) -> None:  # fmt: skip
    """A whole small study on the embedded image set; ends by naming report.html."""
    from importlib.resources import files

    from crossdistill.core.study_file import parse_study

    text = files("crossdistill.study").joinpath("demo.yaml").read_text(encoding="utf-8")
    jobs = None if devices else min(2, os.cpu_count() or 1)  # one thread each: small networks make little use of a second
    run(parse_study(text, source="demo.yaml"), out, device, store, quiet, jobs=jobs, devices=devices)


@app.command()
def report(
    folder: StudyFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Rebuild it whenever something changed, until the study is done.")] = False,
) -> None:
    """Rebuild FOLDER/report.html from the records alone."""
    from crossdistill.core.errors import StudyError
    from crossdistill.report.page import build_page
    from crossdistill.study.folder import PLAN_FILE

    if watch and folder.is_dir():
        return _watch(folder)
    if not (folder / PLAN_FILE).exists():
        raise StudyError(f"{folder} holds no study (no {PLAN_FILE}): give the folder that was --out of `crossdistill study run`")
    print(build_page(folder))


def _watch(folder: Path) -> None:
    """Ctrl-C is how a watch is meant to end where the study goes on: nothing was interrupted."""
    from crossdistill.report.watch import watch

    try:
        watch(folder, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("no longer watched; the page stays as it is")


@app.command()
def distill(
    teacher: Annotated[str, typer.Option(help="Model name, or FILE.safetensors of a trained network.")],
    student: Annotated[str, typer.Option(help="Model name, e.g. small/resnet20.")],
    images: Images,
    out: Out,
    method: Annotated[str, typer.Option(help="See `crossdistill list methods`.")] = "kd",
    epochs: Annotated[int, typer.Option(help="Epochs of the student (and of a teacher that has to be trained).")] = 30,
    seeds: Annotated[int, typer.Option(help="Runs an arm; 5 or more allow a verdict.")] = 1,
    pretrained: Annotated[bool, typer.Option(help="Start the teacher from published weights.")] = False,
    device: Device = "auto", store: Store = None, quiet: Quiet = False, devices: Devices = None,
) -> None:  # fmt: skip
    """Distil one teacher into one student, with the independent student beside it; no study file needed."""
    from crossdistill.study.single import single_study

    config = single_study(
        teacher, student, images, method=method, seeds=range(seeds), pretrained=pretrained, name=out.resolve().name,
        training={"epochs": epochs},
    )  # fmt: skip
    run(config, out, device, store, quiet, devices=devices)


@app.command()
def evaluate(
    out: Out,
    networks: Annotated[list[str] | None, typer.Argument(help="FILE.safetensors, a run's folder, or a pretrained model's name.")] = None,
    images: SomeImages = None,
    decisions: Annotated[Path | None, typer.Option("--decisions", help="CSV or Parquet of decisions made elsewhere; no networks.")] = None,
    probes: Probes = None,
    preset: Preset = "quick",
    masks: Masks = None, encoder: Encoder = None, styles: Styles = None,
    device: Device = "auto", store: Store = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Profiles of networks that you already have, and each two of them compared, or of decisions made elsewhere; trains nothing."""
    from crossdistill.core.errors import SettingError

    if decisions is not None:
        if networks or images:
            raise SettingError("--decisions stands alone: the file says which networks answered which images")
        return _evaluate_decisions(decisions, out)
    if not networks or images is None:
        raise SettingError("name one network or more and their --images, or a file of --decisions")
    from crossdistill.study.environment import chosen_device
    from crossdistill.study.evaluate import evaluate_networks

    found = evaluate_networks(
        networks,
        images,
        out=out,
        probes=probes,
        given={"masks": masks, "encoder": encoder, "styles": styles},
        preset=preset,
        store=chosen_store(store),
        device=chosen_device(device),
        progress=new_progress(quiet),
    )
    _show_profiles(found, ("accuracy", "retention"), out)


def _evaluate_decisions(file: Path, out: Path) -> None:
    from crossdistill.study.decisions import evaluate_decisions

    _show_profiles(evaluate_decisions(file, out=out), ("accuracy", "retention", "shape_bias", "cue_counts_either"), out)


def _show_profiles(found: Evaluated, metrics: tuple[str, ...], out: Path) -> None:
    from crossdistill.study.decisions import PAIRS_FILE, RESULTS_FILE

    shown = [row for row in found.results if row.metric in metrics and row.level in ("", "auc")]
    print_table(
        ("network", "images", "figure", "value", "95 % interval", "n", "remark"),
        [[r.student, r.probe, r.metric, cell(r.value), f"{cell(r.low)}..{cell(r.high)}", str(r.n), r.reason or ""] for r in shown],
    )
    print(out / RESULTS_FILE)
    if found.pairs:
        print(out / PAIRS_FILE)


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A folder of STUDY/runs, or FILE.safetensors of crossdistill's.")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder, or that of an earlier export of the same network.")],
    format: Annotated[str, typer.Option("--format", help="safetensors, onnx or huggingface.")] = "safetensors",
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time the student beside its teacher.")] = True,
    device: Annotated[str, typer.Option("--device", help="Where torch is timed: cpu, cuda, cuda:1 ...")] = "cpu",
    store: Store = None,
) -> None:
    """Take a network away: files that load without crossdistill, compared with it, timed beside the teacher, with a model card."""
    from crossdistill.export import export_student
    from crossdistill.export.latency import SIZE_COLUMNS, TIMING_COLUMNS, conditions, size_rows, timing_rows
    from crossdistill.study.environment import chosen_device

    done = export_student(run_folder, format, out, store=chosen_store(store), latency=latency, device=chosen_device(device))
    if done.costs:
        print_table(SIZE_COLUMNS, size_rows(done.costs))
        print()
        print_table(TIMING_COLUMNS, timing_rows(done.costs))
        print(conditions(done.costs))
        if done.costs["teacher_missing"]:
            print(f"The teacher is not in the table: {done.costs['teacher_missing']}.")
    shown = ", ".join(f"{value:.2g} at batch {batch}" for batch, value in done.differences.items())
    print(f"Largest difference of the logits when loaded as below: {shown}.\n\n{done.code}\n{done.folder}")


app.command("list")(list_plugins)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Versions, devices, threads, cache sizes; what is missing and how to get it."""
    from crossdistill.study.doctor import diagnosis

    facts = diagnosis()
    print(json.dumps(facts, indent=1)) if as_json else print_table(("", ""), [[k, str(v)] for k, v in facts.items()])


def main() -> None:
    """Entry point: turns what the user can mend into one message and exit code 2."""
    code = _exit_code()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Native threads that still hold Python objects while the interpreter is taken down can abort a process that has done its work.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _exit_code() -> int:
    from crossdistill.core.errors import CrossdistillError
    from crossdistill.train.signals import ended_like_ctrl_c

    try:
        with ended_like_ctrl_c():
            code = app(standalone_mode=False)  # typer answers Ctrl-C with 130
    except KeyboardInterrupt:  # before typer was listening
        code = 130
    except SystemExit as ended:  # whoever asked for it has said why
        return int(ended.code or 0)
    except CrossdistillError as error:
        print(f"crossdistill: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        print(f"crossdistill: cannot use {error.filename or 'a file'}: {error.strerror}. What was finished is kept.", file=sys.stderr)
        return 2
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line itself; typer carries its own click
        if show is None:
            raise
        show()
        return 2
    if code == 130:
        print("\ninterrupted: what was done is saved, the same command goes on from there", file=sys.stderr)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
