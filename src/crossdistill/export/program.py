"""The whole network as one program of plain torch: resize, normalisation, all heads and the read-out inside."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from crossdistill.core import seeds
from crossdistill.core.errors import WeightsError
from crossdistill.ops.network import Network

BATCHES = (1, 2, 7)
"""The batch sizes at which an export is compared with the network: the ones that exporters confuse with a fixed size, and an odd one."""

TOLERANCE = 1e-4
"""The largest difference of logits that is accepted, relative to the largest logit (to 1 where that is smaller): float32 sums in another
order differ by about 1e-6, a wrong layer or normalisation by far more than this."""

Answers = Callable[[Tensor], Tensor]
"""From images [batch, 3, height, width], floats of 0 to 1, to logits [batch, classes]."""


class Program(nn.Module):
    """Images [batch, 3, height, width], floats of 0 to 1 at the data's size, to logits [batch, classes]: what a Network's user sees."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).logits


@torch.no_grad()
def exported_program(network: Network, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The network as a torch.export program for images of `size` (height, width), of any batch size.

    Raises WeightsError for code that cannot be followed, such as one that branches on what an image shows.
    """
    images = torch.zeros(2, 3, *size)
    with quiet(), plain_attention(), exporting(f"torch.export cannot make a program of {network.model_name}"):
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        return torch.export.export(Program(network).eval(), (images,), dynamic_shapes=shapes, strict=False)


@torch.no_grad()
def differences(network: Network, size: tuple[int, int], answers: Answers, *, what: str) -> dict[str, float]:
    """{batch size: the largest difference of the exported logits from the network's}, on random images of 8 bits.

    Raises WeightsError where one is above TOLERANCE: such an export would be another network.
    """
    found: dict[str, float] = {}
    for batch in BATCHES:
        images = random_images(batch, size)
        own, exported = network(images).logits, answers(images / 255)
        if exported.shape != own.shape:
            raise WeightsError(f"{what} gives logits of shape {tuple(exported.shape)}, the network {tuple(own.shape)}: it is not written")
        found[str(batch)] = float((exported - own).abs().max())
        allowed = TOLERANCE * max(1.0, float(own.abs().max()))
        if not found[str(batch)] <= allowed:
            raise WeightsError(
                f"{what} answers otherwise than the network: logits differ by up to {found[str(batch)]:.2g} at batch size {batch}, "
                f"{allowed:.2g} is allowed. It is not written. Choose another --format."
            )
    return found


def random_images(batch: int, size: tuple[int, int]) -> Tensor:
    """uint8 images [batch, 3, height, width] of noise, the same each time."""
    generator = torch.Generator().manual_seed(seeds.torch_seed("export", batch))
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator)


@contextlib.contextmanager
def exporting(refusal: str) -> Iterator[None]:
    """In this block, whatever torch raises for code that it cannot follow becomes a WeightsError of one sentence."""
    try:
        yield
    except Exception as error:  # of many classes, from torch.export, torch.fx and the ONNX exporter
        first = next(iter(str(error).strip().splitlines()), "no details")
        raise WeightsError(f"{refusal} ({type(error).__name__}: {first}). Nothing is written.") from error


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """torch's fused inference kernel for nn.MultiheadAttention is one opaque call, which exporters do not read."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters talk of their own insides: warnings and log lines that no user can act on are held back for the block."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
