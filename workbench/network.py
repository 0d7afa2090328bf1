"""Turns sections into a network: layers with shapes, tensors and resolved inputs. Knows no values and no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.cfg import Cfg, Note, Options, Section
from workbench.errors import CfgError
from workbench.layers import Context, Layer, Net, layer_classes
from workbench.layers.base import LARGEST_OUTPUT, TRAINING_KEYS
from workbench.layers.head import Head

LARGEST_SIDE = 16384

NET_TRAINING_KEYS = frozenset(
    "batch subdivisions momentum decay learning_rate burn_in max_batches policy steps scales step scale power gamma hue "
    "saturation exposure angle aspect max_crop min_crop center flip mosaic mixup cutmix blur gaussian_noise adam b1 b2 B1 B2 eps "
    "time_steps augment_speed max_epochs seen try_fix_nan track sgdr_cycle sgdr_mult ema_alpha label_smooth_eps random notruth "
    "show_receptive_field contrastive contrastive_jit_flip contrastive_color unsupervised adversarial loss_scale cudnn_half "
    "dynamic_minibatch badlabels_reject_threshold badlabels_rejection_percentage num_sigmas_reject_badlabels "
    "equidistant_point optimized_memory workspace_size_limit_MB mosaic_bound letter_box_train max_delta burnin_update "
    "reject_threshold max_chart_loss seq_scales num_steps init_sequential_subdivisions sequential_subdivisions weights_reject_freq "
    "all_gaussian_noise full_cosine".lower().split()
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
        """How many pixels of input the coarsest head's cell covers: sizes should be multiples of it."""
        heads = self.heads or (self.layers[-1],)
        return max([1, *(self.width // head.output_shape[2] for head in heads)])

    @property
    def any_size(self) -> bool:
        """False where some layer's parameters or meaning depend on the input size."""
        return all(layer.any_size for layer in self.layers)

    def last_use(self) -> dict[int, int]:
        """For each layer, the last layer that reads its output; itself where nobody does."""
        use = {layer.index: layer.index for layer in self.layers}
        for layer in self.layers:
            use.update(dict.fromkeys((i for i in layer.inputs if i >= 0), layer.index))
        return use


def build_network(cfg: Cfg, width: int | None = None, height: int | None = None) -> Network:
    """Make every layer of `cfg`, at the size of the cfg or another; raises CfgError with file and line."""
    notes = list(cfg.notes)
    net = _read_net(cfg, width, height, notes)
    layers: list[Layer] = []
    for index, section in enumerate(cfg.sections):
        layer = _build_layer(index, section, net, layers, notes)
        layers.append(layer)
    return Network(cfg, net, tuple(layers), tuple(notes))


def _build_layer(index: int, section: Section, net: Net, layers: list[Layer], notes: list[Note]) -> Layer:
    classes = layer_classes()
    if section.kind not in classes:
        raise CfgError(
            section.where(), f"[{section.kind}] is a layer the workbench does not know", expected=", ".join(sorted(classes)),
            found=f"[{section.kind}]", next_step="Adding a layer is adding one file to workbench/layers/.",
        )
    layer_class, options = classes[section.kind], Options(section)
    options.ignore(*TRAINING_KEYS, *layer_class.training_keys)
    context = Context(index, options, net, layers)
    layer = layer_class.parse(context)
    c, h, w = layer.output_shape
    if c * h * w > LARGEST_OUTPUT:
        raise CfgError(section.where(), f"layer {index} puts out {c} x {h} x {w} values", expected=f"at most {LARGEST_OUTPUT}, as Darknet counts them")
    notes.extend((*options.notes, *context.notes, *options.unread()))
    return layer


def _read_net(cfg: Cfg, width: int | None, height: int | None, notes: list[Note]) -> Net:
    options = Options(cfg.net)
    options.ignore(*NET_TRAINING_KEYS)
    sizes = {key: options.integer(key, 0, least=0, most=LARGEST_SIDE) for key in ("width", "height", "channels")}
    c = sizes["channels"]
    w, h = width or sizes["width"], height or sizes["height"]
    inputs = options.integer("inputs", w * h * c, least=0, most=LARGEST_OUTPUT)
    letter_box = bool(options.integer("letter_box", 0))
    if not (w and h and c):
        if not inputs:
            missing = next(key for key in ("width", "height", "channels") if not sizes[key])
            raise CfgError(cfg.net.where(missing), f"[net] needs {missing}=", expected="width=, height= and channels=, or inputs=")
        w, h, c = 1, 1, inputs
    notes.extend((*options.notes, *options.unread()))
    return Net(w, h, c, inputs, letter_box, cfg.net.line, cfg.source)


def walk_sections(network: Network) -> Iterator[tuple[Layer, Section]]:
    """Each layer with the section it was made from."""
    return zip(network.layers, network.cfg.sections, strict=True)
