"""One wrapper around any classifier: it owns its input size and normalisation, and one forward pass gives logits and every tap."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossdistill.core.errors import CrossdistillError, SettingError
from crossdistill.core.types import Activations, FeatureMap
from crossdistill.ops.attention import AttentionCalls, attention_calls
from crossdistill.ops.hook_reader import HookReader
from crossdistill.ops.layouts import tokens_from_grid, widened_map
from crossdistill.ops.losses import widened
from crossdistill.ops.modes import evaluating
from crossdistill.ops.taps import ATTENTION, TAPS, Reader, Reading, checked_taps
from crossdistill.ops.timm_reader import TimmReader, is_timm_like
from crossdistill.ops.tokens import STD, drops_patches, insert_token, takes_token

Readout = Literal["class", "mean_heads", "mean_heads_dense"]
READOUTS: tuple[Readout, ...] = ("class", "mean_heads", "mean_heads_dense")


class Network(nn.Module):
    """Any classifier, with its own resize and normalisation, and its taps.

    `network(images, taps)` takes uint8 or [0, 1] images [batch, 3, height, width] of any size and returns Activations from
    one forward pass. `mean` and `std` are what the model was made for, on the [0, 1] scale. `readout` says which heads make
    the prediction: the class head, the mean of the heads' logits, or the mean of those and of the last head's dense logits
    averaged over positions (CSKD's read-out). A network with several heads predicts with their mean unless told otherwise.
    `model_name` and `settings` say how to build it again; `notes` holds sentences for the reader of a report.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        n_classes: int,
        input_size: tuple[int, int],
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        model_name: str = "",
        settings: Mapping[str, Any] | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.n_classes = n_classes
        self.input_size = input_size
        self.model_name = model_name
        self.settings = dict(settings or {})
        self.notes = list(notes)
        self.extra_heads = nn.ModuleDict()
        self.token_heads: dict[str, int] = {}  # the extra heads that read a token of their own, and its place in the prefix
        # Saved with the weights: a network without its normalisation is another network.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self.reader = self._find_reader()
        self.readout: Readout = "mean_heads" if len(self.heads) > 1 else "class"

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the heads; "class" comes first."""
        return (*self.reader.classifiers(self.model), *self.extra_heads)

    @property
    def taps(self) -> tuple[str, ...]:
        """The taps that `forward` takes."""
        return (*self.reader.stages, *TAPS[4:], *([ATTENTION] if self.reader.attention else []))

    @property
    def family(self) -> Literal["cnn", "token"]:
        """How positions are mixed. "token": patches that do not overlap, then attention or MLPs. "cnn": convolutions that overlap.

        A hybrid (MaxViT, CoAtNet) counts as "cnn", since it has the locality of its convolutions, unless it carries a class token.
        """
        return "cnn" if self._overlapping and self.n_prefix == len(self.token_heads) else "token"

    @property
    def patch_grid(self) -> tuple[int, int] | None:
        """(rows, columns) of the patches that become tokens, cut from the image without overlap; None where there are none.

        A CNN has none, nor has a transformer behind convolutions that overlap. Of images of any size a patch covers height / rows by
        width / columns pixels, since the network resizes them. Found by a dry run.
        """
        if self._overlapping:
            return None
        _, rows, columns = self.shapes()[self.reader.stages[0]]
        return rows, columns

    @property
    def n_prefix(self) -> int:
        """The number of class, distillation and register tokens."""
        return self.reader.n_prefix

    @property
    def n_parameters(self) -> int:
        """All parameters, trained or not, heads included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def add_head(self, name: str) -> nn.Linear:
        """A further linear head on the pooled vector, initialised from torch's global generator; the read-out stays as it is."""
        if name in self.heads:
            raise ValueError(f"the network has a head '{name}' already: {', '.join(self.heads)}")
        head = nn.Linear(self.shapes()["pooled"][0], self.n_classes).to(self.mean)
        self.extra_heads[name] = head
        return head

    def add_token_head(self, name: str) -> nn.Linear:
        """A further linear head that reads a learned token of its own (DeiT's distillation token), both initialised as DeiT's.

        The token stands after the class token. Where the model takes no further token (CNN, Swin, torchvision, a user's own),
        the head reads the pooled vector, and `notes` says so. The read-out stays as it is. Raises SettingError where the model
        drops patches in training: the token is told from the patches by its place among all of them.
        """
        if drops_patches(self.model):
            raise SettingError(
                f"{self._called} drops patches in training, and a {name} token can then not be told from them: "
                "leave out the option `patch_drop_rate`"
            )
        head = self.add_head(name)
        if not (is_timm_like(self.model) and takes_token(self.model)):
            self.notes.append(f"{name} head on the pooled vector: {self._called} takes no further token")
            return head
        # Drawn in float32 on the CPU, wherever and in whatever precision the network is.
        head.weight.data.copy_(nn.init.trunc_normal_(torch.empty(head.weight.shape), std=STD))
        nn.init.zeros_(head.bias)
        self.token_heads[name] = insert_token(self.model, len(self.token_heads))
        self.reader = self._find_reader()
        return head

    def forward(self, images: Tensor, taps: Iterable[str] = ()) -> Activations:
        """Logits, heads and the taps asked for; half precision comes back as float32.

        Raises UnknownNameError for a tap that the network has not.
        """
        wanted = checked_taps(taps, self.taps)
        with_dense = "dense" in wanted or self.readout == "mean_heads_dense"
        maps = wanted - {"pooled", "dense", ATTENTION} | ({"last"} if with_dense or self.token_heads else set())
        with_pooled = "pooled" in wanted or len(self.extra_heads) > len(self.token_heads)
        watching = attention_calls(self.model) if ATTENTION in wanted else nullcontext()
        with watching as calls:
            reading = self.reader.read(self.model, self.normalised(images), maps, pooled=with_pooled)
        # The answer has moved BatchNorm's statistics once; heads on single tokens and positions must not move them again.
        with _held_statistics(self.model) if with_dense or self.token_heads else nullcontext():
            heads = {name: widened(logits) for name, logits in self._all_heads(reading).items()}
            dense = self._dense(reading.maps["last"]) if with_dense else {}
        return Activations(
            logits=self._read_out(heads, dense),
            pooled=widened(reading.pooled["class"]) if "pooled" in wanted else None,
            stages={name: widened_map(value) for name, value in reading.maps.items() if name in wanted},
            heads=heads,
            dense=dense if "dense" in wanted else {},
            attention=self._attention(calls, len(images)) if calls else {},
        )

    def normalised(self, images: Tensor) -> Tensor:
        """The images as the model takes them: at its input size, in its precision, normalised by its mean and std."""
        scale = self.std.reciprocal()
        shift = -self.mean * scale
        if images.dtype == torch.uint8:
            scale = scale / 255
        if tuple(images.shape[-2:]) != self.input_size:
            images = F.interpolate(images.to(self.mean.dtype), self.input_size, mode="bilinear", antialias=True)
        # Over whole images as rows: broadcasting three channel factors over the pixels is five times slower on a CPU.
        n_pixels = images.shape[-2] * images.shape[-1]
        channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        if channels_last:
            images, scale, shift = images.permute(0, 2, 3, 1), scale.flatten().repeat(n_pixels), shift.flatten().repeat(n_pixels)
        else:
            scale, shift = scale.flatten().repeat_interleave(n_pixels), shift.flatten().repeat_interleave(n_pixels)
        rows = torch.mul(images.to(self.mean.dtype).flatten(1), scale).add_(shift).view(images.shape)
        return rows.permute(0, 3, 1, 2) if channels_last else rows

    @torch.no_grad()
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one image's value at every tap, and of its logits: {"stage1": (channels, height, width), ...}.

        From one dry run in eval mode: buffers and random generators are left as they were.
        """
        images = torch.zeros(1, 3, *self.input_size, dtype=self.mean.dtype, device=self.mean.device)
        with evaluating(self), torch.random.fork_rng(devices=[]):
            seen = self(images, [tap for tap in self.taps if tap != "dense" or self.reader.dense_refusal is None])
        shapes = {name: tuple(value.grid.shape[1:]) for name, value in seen.stages.items()}
        shapes |= {"logits": tuple(seen.logits.shape[1:])}
        if seen.pooled is not None:
            shapes["pooled"] = tuple(seen.pooled.shape[1:])
        if seen.attention:
            shapes[ATTENTION] = tuple(seen.attention["q"].shape[1:])
        if seen.dense:
            shapes["dense"] = tuple(seen.dense["class"].shape[1:])
        return shapes

    @torch.no_grad()
    def _find_reader(self) -> Reader:
        images = torch.rand(2, 3, *self.input_size, generator=torch.Generator().manual_seed(0))
        like = next(self.model.parameters(), images)
        images = images.to(like.device, like.dtype)
        make = TimmReader.of if is_timm_like(self.model) else HookReader.of
        with evaluating(self.model), torch.random.fork_rng(devices=[]):
            try:
                reader: Reader = make(self.model, images)
            except CrossdistillError:
                raise
            except (RuntimeError, AssertionError, ValueError) as error:
                height, width = self.input_size
                raise SettingError(
                    f"{self._called} cannot take images of {height} x {width} pixels ({error}). "
                    "Set `input_size` to a size that it takes, often 224: the network then resizes the images itself."
                ) from error
            except AttributeError as error:
                raise self._unreadable(error) from error
            try:
                reader.read(self.model, images[:1], frozenset({"last"}), pooled=False)
            except (RuntimeError, ValueError, AttributeError) as error:
                raise self._unreadable(error) from error
        return reader

    @property
    def _overlapping(self) -> bool:
        return any(isinstance(m, nn.Conv2d) and max(m.kernel_size) > max(m.stride) for m in self.model.modules())

    @property
    def _called(self) -> str:
        return self.model_name or type(self.model).__name__

    def _unreadable(self, error: Exception) -> SettingError:
        return SettingError(
            f"the features of {self._called} cannot be read ({error}): "
            "they are neither one map nor one row of prefix tokens and patches. Choose another model."
        )

    def _attention(self, calls: AttentionCalls, n_images: int) -> dict[str, Tensor]:
        assert self.reader.attention is not None, "the tap is offered only where the dry run saw attention"
        n_tokens = self.reader.attention[1]
        last = calls.last(n_images, n_tokens)
        if last is None:  # train mode may drop patches
            raise RuntimeError(f"attention cannot be read: in this pass no self-attention went over all {n_tokens} tokens")
        return {name: widened(values) for name, values in last.items()}

    def _all_heads(self, reading: Reading) -> dict[str, Tensor]:
        extra = {name: head(self._head_input(name, reading)) for name, head in self.extra_heads.items()}
        return {**reading.heads, **extra}

    def _head_input(self, name: str, reading: Reading) -> Tensor:
        if name not in self.token_heads:
            return reading.pooled["class"]
        prefix = reading.maps["last"].prefix
        assert prefix is not None, "a network with a token head has prefix tokens"
        # As if the token were the whole image, so that a norm between pooling and head applies to it too.
        token = FeatureMap(prefix[:, self.token_heads[name], :, None, None])
        return self.reader.pooled_positions(self.model, token).flatten(1)

    def _dense(self, last: FeatureMap) -> dict[str, Tensor]:
        vectors = self.reader.pooled_positions(self.model, last)  # batch channels height width
        batch, channels, height, width = vectors.shape
        rows = tokens_from_grid(vectors).reshape(-1, channels)
        dense: dict[str, Tensor] = {}
        for name, head in {**self.reader.classifiers(self.model), **self.extra_heads}.items():
            taken = rows[:, :, None, None] if isinstance(head, nn.Conv2d) else rows
            dense[name] = widened(head(taken).reshape(batch, height, width, -1).permute(0, 3, 1, 2))
        return dense

    def _read_out(self, heads: Mapping[str, Tensor], dense: Mapping[str, Tensor]) -> Tensor:
        if self.readout == "class":
            return heads["class"]
        if self.readout == "mean_heads":
            return torch.stack(list(heads.values())).mean(dim=0)
        if self.readout == "mean_heads_dense":
            last_head = dense[self.heads[-1]].mean(dim=(2, 3))
            return torch.stack([*heads.values(), last_head]).mean(dim=0)
        raise SettingError(f"readout is one of {', '.join(READOUTS)}, got {self.readout!r}")


@contextmanager
def _held_statistics(model: nn.Module) -> Iterator[None]:
    """The model's BatchNorms in eval mode for the block: they normalise by their running statistics and leave these alone."""
    moving = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    for module in moving:
        module.training = False
    try:
        yield
    finally:
        for module in moving:
            module.training = True
