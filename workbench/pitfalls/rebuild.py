"""A mistake in understanding the cfg that changes shapes: the network is made again, and other mistakes stay in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from workbench.cfg import Section
from workbench.layers.base import Layer
from workbench.model import Model
from workbench.network import Network, build_network
from workbench.pitfalls.base import mistakes_of, mix
from workbench.pitfalls.misread import lay, misread


def rebuild(model: Model, edit: Callable[[Section], Section]) -> Model:
    """The model as a reader makes it for whom the cfg says what `edit` leaves of it; `network.cfg` stays what it is.

    Tensors take the shapes that the layers then ask for, so everything after the first of them shifts in the file.
    Raises CfgError where no network can be made so.
    """
    network, cfg = model.network, model.network.cfg
    edited = replace(cfg, sections=tuple(edit(section) for section in cfg.sections))
    size = network.width, network.height
    told, understood = (build_network(text, *size, model.dialect) for text in (cfg, edited))
    layers = tuple(
        _carry(layer, was, now, understood)
        for layer, was, now in zip(network.layers, told.layers, understood.layers, strict=True)
    )
    model = replace(model, network=replace(network, layers=layers))
    shapes = {(layer.index, spec.field): spec.shape for layer in layers for spec in layer.tensors(model.dialect)}
    ledger = model.weights.ledger
    spans = (replace(span, shape=shapes[span.layer, span.field]) for span in ledger.spans)
    return misread(model, lay(ledger.header_bytes, spans))


def _carry(layer: Layer, was: Layer, now: Layer, network: Network) -> Layer:
    """`now`, with everything in which `layer` differs from `was`; shapes are those of the new network."""
    changed = {item.name: getattr(layer, item.name) for item in fields(layer)}
    changed = {name: value for name, value in changed.items() if value != getattr(was, name)}
    changed.pop("output_shape", None)
    made = replace(now, **changed)
    net = network.net
    shapes = [network.layers[i].output_shape if i >= 0 else (net.channels, net.height, net.width) for i in made.inputs]
    made = replace(made, input_shapes=tuple(shapes))
    for mistake in mistakes_of(layer):
        made = mix(made, mistake)
    return made


def drop_options(kind: str, *keys: str) -> Callable[[Section], Section]:
    """An `edit` that takes these options out of every section of that kind."""

    def edit(section: Section) -> Section:
        if section.kind != kind:
            return section
        return replace(section, options={key: option for key, option in section.options.items() if key not in keys})

    return edit
