"""`study plan` for people: the trainings, what the teachers' answers cost, the signal gate, and a table of all stages."""

from collections.abc import Mapping
from typing import Any

from crossdistill.core.progress import tables
from crossdistill.study.graph import FOUND
from crossdistill.study.grid import in_words
from crossdistill.study.remaining import duration
from crossdistill.train.stored_arrays import in_bytes

STATES = ("done", "in store", "left", "only if needed")


def show_cost(cost: Mapping[str, Any]) -> None:
    """Print a plan that `planned_cost` gave: where weights are still to be chosen, first that of the choosing."""
    if choosing := cost.get("choosing"):
        print(f"First the weights are chosen on validation images: {in_words({row['method']: row['grid'] for row in cost['weights']})}\n")
        show_cost(choosing)
        print("\nThen the study, with the first weight of each grid in the place of the chosen one: its cost is the same.\n")
    for row in cost.get("weights", ()):
        if row["chosen"] is not None:
            print(f"weight of {row['method']}: {row['chosen']:g}, chosen on validation images")
    from rich.table import Table
    from rich.text import Text

    console = tables()
    table = Table("training", "seeds", "image visits", "state", "about", "known from", box=None, pad_edge=False)
    for row in _by_subject(cost["trainings"]):
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)
    for row in _said_alike([row for row in cost["answers"] if row["left"]]):
        console.print(Text(_answers_in_words(row)))
    seen = cost["observation"]
    about = f", about {duration(seen['seconds'])} left" if seen["seconds"] else ""
    console.print(f"observation: {seen['forwards']:,} forward passes ({seen['forwards_per_network']:,} a network){about}")
    for line in _ceilings(cost["ceilings"]):
        console.print(Text(line))
    if cost["primary"]:
        console.print(f"declared contrasts: {len(cost['primary'])}, corrected apart from the others")
    stages = Table("stage", "tasks", *STATES, "about", "known from", box=None, pad_edge=False)
    for row in cost["stages"]:
        counts = [str(row[name] or "-") for name in ("done", "in_store", "left", "only_if_needed")]
        stages.add_row(row["stage"], str(row["tasks"]), *counts, _about(row), " and ".join(row["measured"]))
    console.print()
    console.print(stages)
    for line in total_in_words(cost):
        console.print(Text(line))
    if choosing:
        print(f"\nchoosing and study together about {duration(cost['seconds_with_choosing'])}")


def total_in_words(cost: Mapping[str, Any]) -> list[str]:
    """The last lines of a plan.

    >>> total = {"jobs": 1, "seconds": 50.0, "seconds_if_needed": 600.0, "unknown": 0, "only_if_needed": 4, "measured": ["trial"]}
    >>> for line in total_in_words({"device": "cpu", "trainings": [], "total": total}):
    ...     print(line)
    in all about 50 s on this machine's cpu with --jobs 1, one task after the other
    and up to 10 min more for 4 tasks that may turn out to be needed
    """
    total, lines = cost["total"], []
    lines.append(f"in all about {duration(total['seconds'])} on this machine's {cost['device']} with --jobs 1, one task after the other")
    if total["only_if_needed"]:
        more = duration(total["seconds_if_needed"])
        lines.append(f"and up to {more} more for {total['only_if_needed']} tasks that may turn out to be needed")
    if total["unknown"]:
        lines.append(f"{total['unknown']} tasks are not counted: nothing is known of their speed until one was run here")
    again = [row["label"] for row in cost["trainings"] if row["note"].startswith("made again")]
    return lines + ([f"made again, since a setting was changed: {', '.join(again)}"] if again else [])


def _by_subject(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each network, arm and state, the seeds together."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        subject = row["label"].partition(", seed ")[0]
        alike.setdefault((subject, row["state"], row["basis"], row["note"]), []).append(row)
    lines = []
    for (subject, state, basis, note), same in alike.items():
        seeds = ", ".join(seed for row in same if (seed := row["label"].partition(", seed ")[2]))
        visits, seconds = sum(row["image_visits"] for row in same), [row["seconds"] for row in same]
        about = "" if state in FOUND else "not known" if None in seconds else duration(sum(seconds))
        lines.append([subject, seeds, f"{visits:,}", f"{state}; {note}" if note else state, about, basis])
    return lines


def _about(row: Mapping[str, Any]) -> str:
    """The seconds of a stage.

    >>> row = {"seconds": 300.0, "seconds_if_needed": 60.0, "unknown": 0}
    >>> _about(row), _about({"seconds": 0.0, "seconds_if_needed": 0.0, "unknown": 1})
    ('5 min, up to 1 min', 'not known')
    """
    if row["unknown"] and not row["seconds"]:
        return "not known"
    perhaps = f"up to {duration(row['seconds_if_needed'])}" if row["seconds_if_needed"] else ""
    return ", ".join(part for part in (duration(row["seconds"]) if row["seconds"] else "", perhaps) if part)


def _ceilings(rows: list[dict[str, Any]]) -> list[str]:
    """What the signal gate may ask for, in words."""
    left = [row for row in rows if row["state"] == "only if needed"]
    if not left:
        return []
    lines = [
        f"signal gate: up to {len(left)} more trainings, about {duration(sum(row['seconds'] or 0.0 for row in left))} if all were needed; "
        "each is run only where no network of the study shows that its probe can be read. Showing the training images through the "
        "probes comes on top and is not counted."
    ]
    probes = dict.fromkeys(row["probe"] for row in left)
    return lines + [f"  {_ceilings_in_words([row for row in left if row['probe'] == probe])}" for probe in probes]


def _said_alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all arms of a pair of which the same is to be said, their costs summed.

    >>> row = {"cached": True, "why": "it pays", "n_bytes": 1, "live_forwards": 2, "cached_forwards": 1, "live_seconds": 2.0}
    >>> rows = [{**row, "arm": f"{method}: vit -> cnn", "seconds_saved": 1.0} for method in ("kd", "crd")]
    >>> [(row["arm"], row["live_forwards"]) for row in _said_alike(rows)]
    [('kd, crd: vit -> cnn', 4)]
    """
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        pair = row["arm"].partition(": ")[2]
        alike.setdefault((pair, row["cached"], row["why"], row["n_bytes"]), []).append(row)
    costs = ("live_forwards", "cached_forwards", "live_seconds", "seconds_saved")
    return [
        {**same[0], "arm": f"{', '.join(row['arm'].partition(': ')[0] for row in same)}: {pair}"}
        | {name: sum(row[name] or 0 for row in same) for name in costs}
        for (pair, *_), same in alike.items()
    ]


def _answers_in_words(row: dict[str, Any]) -> str:
    """What is planned for the teacher's answers to one arm, and what it costs or saves.

    >>> row = {"arm": "kd: vit -> cnn", "n_bytes": 4e6, "live_forwards": 5000, "cached_forwards": 800, "live_seconds": 50.0}
    >>> _answers_in_words({**row, "cached": True, "why": "16 views of each image", "seconds_saved": 42.0})
    "teacher's answers, kd: vit -> cnn: stored (16 views of each image; 4.0 MB a teacher): 800 forward passes for 5,000, saves about 42 s"
    """
    who = f"teacher's answers, {row['arm']}"
    if not row["cached"]:
        return f"{who}: afresh ({row['why']}): {row['live_forwards']:,} forward passes, about {duration(row['live_seconds'])}"
    return (
        f"{who}: stored ({row['why']}; {in_bytes(row['n_bytes'])} a teacher): {row['cached_forwards']:,} forward passes for "
        f"{row['live_forwards']:,}, saves about {duration(row['seconds_saved'])}"
    )


def _ceilings_in_words(rows: list[dict[str, Any]]) -> str:
    """The ceilings that one probe may need.

    >>> _ceilings_in_words([{"probe": "hue", "student": "cnn", "level": level} for level in (None, "a", "b")])
    'hue: cnn on all levels at once; then on each of 2 levels alone'
    """
    names = ", ".join(dict.fromkeys(row["student"] for row in rows))
    alone = len(dict.fromkeys(row["level"] for row in rows if row["level"] is not None))
    if not alone:
        return f"{rows[0]['probe']}: {names}"
    together = any(row["level"] is None for row in rows)
    return f"{rows[0]['probe']}: {names} {'on all levels at once; then ' if together else ''}on each of {alone} levels alone"
