"""Parts of a network that are not trained: no gradient reaches them, and they stay in eval mode.

Without the latter BatchNorm's statistics would move, and dropout would blur what is not to change.
"""

from torch import nn

from crossdistill.core.errors import SettingError, nearest
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Needs
from crossdistill.ops.network import Network

BACKBONE = "backbone"
TRAINED_TAPS = {"dense"}  # what a method may read of a student whose backbone is frozen: it comes from the heads


def freeze(network: Network, recipe: TrainingConfig) -> list[nn.Module]:
    """Stop training what `freeze` names, in place; returns the modules to be kept in eval mode, each without its children.

    Raises SettingError as `frozen_names` does.
    """
    names = frozen_names(network, recipe)
    for name, parameter in network.model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if recipe.freeze == BACKBONE:
        heads = {id(part) for head in _heads(network) for part in head.modules()}
        return [module for module in network.model.modules() if id(module) not in heads]
    return [module for name, module in network.model.named_modules() if _is_under(name, recipe.freeze or ())]


def frozen_names(network: Network, recipe: TrainingConfig) -> frozenset[str]:
    """The names of the model's parameters that `freeze` keeps as they are.

    `backbone`: all but those of the classifier heads, and of the tokens that a method added (and with them the model's own
    registers, which are one parameter with these). A list: those under a name, `blocks.1` but not `blocks.10`. Raises SettingError
    for a name under which the model has nothing, and where nothing of the network would be left to train.
    """
    names = [name for name, _ in network.model.named_parameters()]
    if recipe.freeze is None:
        return frozenset()
    if recipe.freeze == BACKBONE:
        heads = {id(parameter) for head in _heads(network) for parameter in head.parameters()}
        added = {"reg_token"} if network.token_heads else set()
        return frozenset(name for name, p in network.model.named_parameters() if id(p) not in heads and name not in added)
    for prefix in recipe.freeze:
        if not any(_is_under(name, (prefix,)) for name in names):
            raise _unknown(network.model_name, prefix, names)
    found = frozenset(name for name in names if _is_under(name, recipe.freeze))
    if len(found) == len(names):
        raise SettingError(f"freeze: {', '.join(recipe.freeze)} is all of {network.model_name}, and nothing would be left to train")
    return found


def _heads(network: Network) -> list[nn.Module]:
    return list(network.reader.classifiers(network.model).values())


def _unknown(model: str, prefix: str, names: list[str]) -> SettingError:
    paths = [name.split(".") for name in names]
    known = {".".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}
    parts = ", ".join(dict.fromkeys(path[0] for path in paths))
    return SettingError(f"freeze: {model} has no parameters under '{prefix}'.{nearest(prefix, sorted(known))} Its parts: {parts}")


def _is_under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def frozen_refusal(needs: Needs, recipe: TrainingConfig) -> str | None:
    """Why a method makes no sense for a student whose backbone is frozen, in words; None where it does, or where none is frozen."""
    features = [tap for tap in needs.student_taps if tap not in TRAINED_TAPS]
    if recipe.freeze != BACKBONE or not features:
        return None
    return (
        f"it teaches the student's features ({', '.join(features)}), which `freeze: backbone` keeps as they are: "
        "train the backbone, or freeze only its first layers by name"
    )
