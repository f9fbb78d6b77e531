"""The command line. Each command imports what it runs inside its body, so that `--help` answers at once.

Exit codes: 0 done; 2 the user can mend it (one message, no traceback); 1 a defect of ours; 130 interrupted, by Ctrl-C or by
the SIGTERM of a scheduler (state saved).
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    run(parse_study(text, source="demo.yaml"), out, device, store, quiet, devices=devices)


@app.command()
def report(folder: Path) -> None:
    """Rebuild FOLDER/report.html from the records alone."""
    from crossdistill.core.errors import StudyError
    from crossdistill.report.page import build_page
    from crossdistill.study.folder import PLAN_FILE

    if not (folder / PLAN_FILE).exists():
        raise StudyError(f"{folder} holds no study (no {PLAN_FILE}): give the folder that was --out of `crossdistill study run`")
    print(build_page(folder))


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
        teacher, student, images, method=method, epochs=epochs, seeds=seeds, pretrained=pretrained, name=out.resolve().name
    )
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


@app.command("list")
def list_plugins(
    kind: Annotated[str, typer.Argument(help="methods, probes, metrics, instruments, models or images")],
    name: Annotated[str | None, typer.Argument()] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The gallery page of methods or probes, or one entry of it.")] = False,
) -> None:
    """What there is, or what one of them is and takes."""
    from crossdistill.core import registry
    from crossdistill.core.errors import SettingError, unknown_name

    kinds = {folder: singular for singular, folder in registry.PACKAGES.items()}
    if kind not in kinds:
        raise unknown_name("kind", kind, kinds)
    galleries = {"methods": _show_methods, "probes": _show_probes}
    if markdown and kind not in galleries:
        raise SettingError(f"there is a gallery page of {' and of '.join(galleries)}, not of {kind}: leave --markdown out")
    if name is None and not markdown:
        rows = [{"name": n, "summary": registry.summary(kinds[kind], n)} for n in registry.names(kinds[kind])]
        print(json.dumps(rows, indent=1)) if as_json else print_table(("name", "summary"), [[row["name"], row["summary"]] for row in rows])
    elif kind in galleries:
        galleries[kind](name, as_json, markdown)
    else:
        assert name is not None
        facts = registry.describe(registry.get(kinds[kind], name))
        print(json.dumps(facts, indent=1, default=str)) if as_json else _show_facts(facts)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Versions, devices, threads, cache sizes; what is missing and how to get it."""
    from crossdistill.study.doctor import diagnosis

    facts = diagnosis()
    print(json.dumps(facts, indent=1)) if as_json else print_table(("", ""), [[k, str(v)] for k, v in facts.items()])


def _show_methods(name: str | None, as_json: bool, markdown: bool) -> None:
    """One method, or the page of all."""
    from dataclasses import asdict

    from crossdistill.core import registry
    from crossdistill.study.gallery import gallery, section
    from crossdistill.study.method_card import method_card

    if name is None:
        print(gallery(method_card(registry.get("method", each)) for each in registry.names("method")), end="")
        return
    card = method_card(registry.get("method", name))
    if as_json:
        print(json.dumps(asdict(card), indent=1, default=str))
    else:
        _show_markdown(section(card), markdown)


def _show_probes(name: str | None, as_json: bool, markdown: bool) -> None:
    """One probe, or the page of all."""
    from crossdistill.core import registry
    from crossdistill.study.probe_gallery import probe_gallery, section

    if name is None:
        print(probe_gallery(registry.get("probe", each) for each in registry.names("probe")), end="")
    elif as_json:
        print(json.dumps(registry.describe(registry.get("probe", name)), indent=1, default=str))
    else:
        _show_markdown(section(registry.get("probe", name), pictures=markdown), markdown)


def _show_markdown(text: str, raw: bool) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    print(text) if raw else Console().print(Markdown(text))


def _show_facts(facts: dict[str, Any]) -> None:
    from crossdistill.core.setting_words import default_words

    settings = {
        f"setting {name}": setting["type"] + (f", default {default_words(setting['default'])}" if "default" in setting else ", required")
        for name, setting in facts["settings"].items()
    }
    print_table(("", ""), [[key, default_words(value)] for key, value in {**facts, **settings}.items() if key != "settings"])


def main() -> None:
    """Entry point: turns what the user can mend into one message and exit code 2."""
    from crossdistill.core.errors import CrossdistillError
    from crossdistill.train.signals import ended_like_ctrl_c

    try:
        with ended_like_ctrl_c():
            code = app(standalone_mode=False)  # typer answers Ctrl-C with 130
    except KeyboardInterrupt:  # before typer was listening
        code = 130
    except CrossdistillError as error:
        print(f"crossdistill: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        print(f"crossdistill: cannot use {error.filename or 'a file'}: {error.strerror}. What was finished is kept.", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line itself; typer carries its own click
        if show is None:
            raise
        show()
        sys.exit(2)
    if code == 130:
        print("\ninterrupted: what was done is saved, the same command goes on from there", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
