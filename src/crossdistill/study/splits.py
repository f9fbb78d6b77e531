"""The images of a study, and the names of what it reads of them."""

from collections.abc import Callable

from crossdistill.core.config import StudyConfig
from crossdistill.core.progress import Progress
from crossdistill.core.store import digest
from crossdistill.core.types import ImageSet, Splits
from crossdistill.images._splits import load_splits


def study_splits(config: StudyConfig, progress: Progress) -> Splits:
    """The images of a study, decoded once into the cache."""
    images = config.images
    return load_splits(
        images.source, images.settings, train_images=images.train_images, validation_images=images.validation_images,
        test_images=images.test_images, cue_conflict=images.cue_conflict, transfer=images.transfer, transfer_images=images.transfer_images,
        test=images.test, exclude=images.exclude, seed=config.seed, progress=decoding(progress),
    )  # fmt: skip


def decoding(progress: Progress) -> Callable[[str, int, int], None]:
    """What tells of each split once that it is being decoded."""
    announced: set[str] = set()

    def tell(what: str, done: int, total: int) -> None:
        if what not in announced:
            announced.add(what)
            progress.line(f"{what}: {total:,} images")

    return tell


def fingerprint(splits: Splits) -> str:
    """Names the images that a study reads: the sources' content, and which of them, in which order, are in which split."""
    return digest([named(splits.train), named(splits.validation), named(splits.test)])


def training_fingerprint(splits: Splits) -> str:
    """Names the images that trainings read. Other test images ask for other observations of the same networks."""
    return digest([named(splits.train), named(splits.validation)])


def named(images: ImageSet) -> str:
    """Names a set of images: the content of its source, and which of its images are there, in which order."""
    return digest([images.provenance["key"], images.ids.tolist(), images.labels.tolist()])
