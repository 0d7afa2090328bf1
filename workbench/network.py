"""Turns sections into a network: layers with shapes, tensors and resolved inputs. Knows no values and no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from workbench.cfg import Cfg, Note, Section
from workbench.dialects import Dialect, infer_dialect
from workbench.errors import CfgError, OptionError
from workbench.layers import Context, Layer, Net, find_layer_class, layer_classes
from workbench.layers.base import LARGEST_OUTPUT, TRAINING_KEYS
from workbench.layers.head import Head
from workbench.options import Options

LARGEST_SIDE = 16384

NET_TRAINING_KEYS = frozenset(
    "adam adversarial all_gaussian_noise angle aspect augment_speed b1 b2 badlabels_reject_threshold "
    "badlabels_rejection_percentage batch blur burn_in burnin_update center contrastive contrastive_color "
    "contrastive_jit_flip cudnn_half cutmix decay dynamic_minibatch ema_alpha eps equidistant_point exposure flip "
    "full_cosine gamma gaussian_noise hue init_sequential_subdivisions label_smooth_eps learning_rate "
    "letter_box_train loss_scale max_batches max_chart_loss max_crop max_delta max_epochs min_crop mixup momentum "
    "mosaic mosaic_bound notruth num_sigmas_reject_badlabels num_steps optimized_memory policy power random "
    "reject_threshold saturation scale scales seen seq_scales sequential_subdivisions sgdr_cycle sgdr_mult "
    "show_receptive_field step steps subdivisions time_steps track try_fix_nan unsupervised weights_reject_freq "
    "workspace_size_limit_mb "
    "".split()
)


@dataclass(frozen=True)
class Network:
    """The layers of one cfg, in its order; `notes` is everything that was worth saying while reading it."""

    cfg: Cfg
    net: Net
    layers: tuple[Layer, ...]
    notes: tuple[Note, ...]

    @property
    def width(self) -> int:
        """Width of the network input in pixels."""
        return self.net.width

    @property
    def height(self) -> int:
        """Height of the network input in pixels."""
        return self.net.height

    @property
    def channels(self) -> int:
        """Channels of the network input."""
        return self.net.channels

    @property
    def heads(self) -> tuple[Head, ...]:
        """The layers whose outputs are decoded into boxes."""
        return tuple(layer for layer in self.layers if isinstance(layer, Head))

    @property
    def cfg_path(self) -> Path | None:
        """The file the cfg was read from."""
        return self.cfg.path

    @property
    def stride(self) -> int:
        """How many pixels of input the coarsest cell covers: sizes should be multiples of it."""
        fixed = self.fixed_layers
        return max([1, *(self.width // layer.output_shape[2] for layer in self.layers if layer.index not in fixed)])

    @property
    def any_size(self) -> bool:
        """False where some layer's parameters or meaning depend on the input size."""
        if not self.net.has_size:
            return False
        fixed = self.fixed_layers
        return all(layer.any_size or fixed.issuperset(layer.inputs) for layer in self.layers)

    @cached_property
    def fixed_layers(self) -> frozenset[int]:
        """The layers whose output has one height and width whatever the size of the input: all after `[avgpool]`."""
        fixed: set[int] = set() if self.net.has_size else {-1}
        for layer in self.layers:
            if layer.fixes_size or fixed.issuperset(layer.inputs):
                fixed.add(layer.index)
        return frozenset(fixed)

    @property
    def result(self) -> int:
        """The last layer that computes something: `[cost]` at the end is no result."""
        index = len(self.layers) - 1
        while index >= 0 and self.layers[index].only_training:
            index = self.layers[index].inputs[0]
        return index if index >= 0 else len(self.layers) - 1

    def last_use(self) -> dict[int, int]:
        """For each layer, the last layer that reads its output; itself where nobody does."""
        use = {layer.index: layer.index for layer in self.layers}
        for layer in self.layers:
            use.update(dict.fromkeys((i for i in layer.inputs if i >= 0), layer.index))
        return use


def build_network(
    cfg: Cfg, width: int | None = None, height: int | None = None, dialect: Dialect | None = None
) -> Network:
    """Make every layer of `cfg`, at the size of the cfg or another, as `dialect` reads it (inferred where None).

    Raises CfgError with file and line, OptionError for a width or height that no network has.
    """
    notes = list(cfg.notes)
    dialect = dialect or infer_dialect(cfg)[0]
    net = replace(_read_net(cfg, width, height, notes), dialect=dialect)
    notes.extend(_unknown_activations(cfg, dialect))
    layers: list[Layer] = []
    for index, section in enumerate(cfg.sections):
        layers.append(_build_layer(index, section, net, layers, notes, cfg.sections[index + 1 :]))
    return Network(cfg, net, tuple(layers), tuple(notes))


def _unknown_activations(cfg: Cfg, dialect: Dialect) -> Iterator[Note]:
    """One note for each activation that the fork does not know: there it is another network."""
    options = [section.options["activation"] for section in cfg.sections if "activation" in section.options]
    for name in sorted(dialect.unknown_activations):
        lines = [option.line for option in options if option.value.lower() == name]
        if lines:
            text = f"activation={name} is unknown to the {dialect} Darknet, which computes relu in {len(lines)} layers"
            yield Note(f"{cfg.source}:{lines[0]}", f"{text}; here it is {name}")


def _build_layer(
    index: int, section: Section, net: Net, layers: list[Layer], notes: list[Note], following: tuple[Section, ...]
) -> Layer:
    layer_class = find_layer_class(section.kind)
    if layer_class is None:
        raise CfgError(
            section.where(),
            f"[{section.kind}] is a layer the workbench does not know",
            expected=", ".join(sorted(layer_classes())),
            found=f"[{section.kind}]",
            next_step="Adding a layer is adding one file to workbench/layers/.",
        )
    options = Options(section)
    options.ignore(*TRAINING_KEYS, *layer_class.training_keys)
    context = Context(index, options, net, layers, following=following)
    layer = layer_class.parse(context)
    c, h, w = layer.output_shape
    if c * h * w > LARGEST_OUTPUT:
        raise CfgError(
            section.where(),
            f"layer {index} puts out {c} x {h} x {w} values",
            expected=f"at most {LARGEST_OUTPUT}, as Darknet counts them",
        )
    notes.extend((*options.notes, *context.notes, *options.unread()))
    return layer


def _read_net(cfg: Cfg, width: int | None, height: int | None, notes: list[Note]) -> Net:
    for side in (width, height):
        if side is not None and not 1 <= side <= LARGEST_SIDE:
            raise OptionError("size", "out of range", expected=f"1 to {LARGEST_SIDE} pixels", found=side)
    options = Options(cfg.net)
    options.ignore(*NET_TRAINING_KEYS)
    sizes = {key: options.integer(key, 0, least=0, most=LARGEST_SIDE) for key in ("width", "height", "channels")}
    c = sizes["channels"]
    w, h = width or sizes["width"], height or sizes["height"]
    inputs = options.integer("inputs", w * h * c, least=0, most=LARGEST_OUTPUT)
    letter_box = bool(options.integer("letter_box", 0))
    time_steps = options.integer("time_steps", 1, least=1)
    has_size = bool(w and h and c)
    if not has_size:
        if not inputs:
            missing = next(key for key in ("width", "height", "channels") if not sizes[key])
            raise CfgError(
                cfg.net.where(missing), f"[net] needs {missing}=", expected="width=, height= and channels=, or inputs="
            )
        w, h, c = 1, 1, inputs
    notes.extend((*options.notes, *options.unread()))
    folder = cfg.path.parent if cfg.path else None
    return Net(w, h, c, inputs, letter_box, cfg.net.line, cfg.source, folder, time_steps, has_size=has_size)


def walk_sections(network: Network) -> Iterator[tuple[Layer, Section]]:
    """Each layer with the section it was made from."""
    return zip(network.layers, network.cfg.sections, strict=True)
