"""Draw the pictures of docs/probes.md anew: every probe on scikit-image's photographs, at 32 and at 224 pixels.

    python docs/probe_pictures.py [--encoder FILE.safetensors] [PROBE ...]

`stylized` needs an encoder and is left out without one; `texture_swap` is shown on trifeature, whose objects can be drawn anew.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image
from skimage import data

from crossdistill.core import registry
from crossdistill.core.progress import Progress
from crossdistill.core.store import cache_folder
from crossdistill.core.types import Splits
from crossdistill.images._splits import load_splits
from crossdistill.study.probe_gallery import SIZES, picture
from crossdistill.study.probes import ProbeJob

PICTURES = Path(__file__).parent / "probes"
CROPS = {"astronaut": (60, 0, 380, 320), "chelsea": (75, 0, 375, 300), "coffee": (100, 0, 500, 400), "rocket": (100, 0, 527, 427)}
N_ROWS, QUALITY = 3, 80


def photographs(side: int, folder: Path) -> Splits:
    """Four photographs, cut square; each stands for a class."""
    for name, crop in CROPS.items():
        image = Image.fromarray(getattr(data, name)()).crop(crop).resize((side, side), Image.Resampling.BOX)
        for split in ("train", "test"):
            file = folder / split / name / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        image.save(folder / "train" / name / "again.png")  # validation is cut from the training images
    return load_splits("folder", {"path": str(folder)})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("probes", nargs="*", default=registry.names("probe"), metavar="PROBE", help="default: all")
    parser.add_argument("--encoder", help="of stylized")
    asked = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    for side in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            shown = photographs(side, Path(folder))
        drawn = load_splits("trifeature", {"side": side, "n_train": 40, "n_test": 20, "n_conflict": 10})
        for name in asked.probes:
            if "encoder" in registry.get("probe", name).inputs and not asked.encoder:
                print(f"left out: {name} needs --encoder")
                continue
            splits = drawn if name == "texture_swap" else shown
            given = {"masks": None, "encoder": asked.encoder, "styles": None}
            job = ProbeJob([name], splits, given, "full", 0, cache_folder(), torch.device("cpu"), Progress(quiet=True))
            with tempfile.TemporaryDirectory() as folder:
                for path in job.previews(Path(folder) / "preview.png", N_ROWS):
                    Image.open(path).save(PICTURES / picture(name, side), quality=QUALITY, method=6)
            print(PICTURES / picture(name, side))


if __name__ == "__main__":
    main()
