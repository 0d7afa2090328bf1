"""Activation functions: one table, one row each, in PyTorch and in ONNX.

`leaky` is 0.1, not PyTorch's 0.01. `mish`, `swish`, `relu6`, `hard_mish` and `gelu` exist in AlexeyAB's fork only;
pjreddie's Darknet 2018 silently computes relu for them (src/activations.c `get_activation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.layers.base import Context, OnnxScope

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class Activation:
    """One function: `torch_` maps a tensor to a tensor, `onnx_` adds its nodes and returns the output name."""

    name: str
    torch_: Callable[[Tensor], Tensor]
    onnx_: Callable[[OnnxScope, str], str]


def _linear(x: Tensor) -> Tensor:
    return x


def _logistic(x: Tensor) -> Tensor:
    return x.sigmoid()


def _relu(x: Tensor) -> Tensor:
    return x.relu()


def _leaky(x: Tensor) -> Tensor:
    from torch.nn.functional import leaky_relu

    return leaky_relu(x, 0.1)


def _mish(x: Tensor) -> Tensor:
    from torch.nn.functional import mish

    return mish(x)


def _swish(x: Tensor) -> Tensor:
    from torch.nn.functional import silu

    return silu(x)


def _tanh(x: Tensor) -> Tensor:
    return x.tanh()


def _relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def _elu(x: Tensor) -> Tensor:
    from torch.nn.functional import elu

    return elu(x)


def _selu(x: Tensor) -> Tensor:
    # AlexeyAB src/activations.h `selu_activate`: 1.0507 and 1.6732, rounded to four places.
    return (x >= 0).to(x.dtype) * 1.0507 * x + (x < 0).to(x.dtype) * 1.0507 * 1.6732 * x.clamp(max=0).expm1()


def _gelu(x: Tensor) -> Tensor:
    # AlexeyAB src/activations.h `gelu_activate`: the tanh form.
    from torch.nn.functional import gelu

    return gelu(x, approximate="tanh")


def _hard_mish(x: Tensor) -> Tensor:
    # AlexeyAB src/activations.h `hard_mish_yashas`: x for x > 0, x*x/2 + x for x > -2, else 0.
    return x.clamp(min=0) + (x.clamp(-2, 0) ** 2) / 2 + x.clamp(-2, 0)


def _relie(x: Tensor) -> Tensor:
    from torch.nn.functional import leaky_relu

    return leaky_relu(x, 0.01)


def _ramp(x: Tensor) -> Tensor:
    return x.relu() + 0.1 * x


def _loggy(x: Tensor) -> Tensor:
    return 2 * x.sigmoid() - 1


def _hardtan(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def _plse(x: Tensor) -> Tensor:
    # pjreddie src/activations.h `plse_activate`.
    return 0.01 * (x - x.clamp(-4, 4)) + 0.125 * x.clamp(-4, 4) + 0.5


def _lhtan(x: Tensor) -> Tensor:
    return x.clamp(0, 1) + 0.001 * (x - x.clamp(0, 1))


def _stair(x: Tensor) -> Tensor:
    # pjreddie src/activations.h `stair_activate`: floor(x/2) on even floors, a slope on odd ones.
    n = x.floor()
    return (n % 2 == 0).to(x.dtype) * (x / 2).floor() + (n % 2 != 0).to(x.dtype) * ((x - n) + (x / 2).floor())


def _op(name: str, **attributes: Any) -> Callable[[OnnxScope, str], str]:
    return lambda g, x: str(g.node(name, x, **attributes))


def _onnx_linear(g: OnnxScope, x: str) -> str:
    return x


def _onnx_mish(g: OnnxScope, x: str) -> str:
    if g.opset >= 18:
        return str(g.node("Mish", x))
    # tanh(log(1 + e^x)) = p / (2 - p) with p = s (2 - s), s = sigmoid(x). ONNX Runtime's Softplus is slow: this way the
    # whole network takes a third of the time and is as near to float64, and nothing overflows in float16.
    sigmoid, two = g.node("Sigmoid", x), g.constant("two", 2.0)
    p = g.node("Mul", sigmoid, g.node("Sub", two, sigmoid))
    return str(g.node("Mul", x, g.node("Div", p, g.node("Sub", two, p))))


def _onnx_swish(g: OnnxScope, x: str) -> str:
    return str(g.node("Mul", x, g.node("Sigmoid", x)))


def _onnx_clip(g: OnnxScope, x: str, low: float, high: float) -> str:
    return str(g.node("Clip", x, g.constant(f"clip_{low:g}", low), g.constant(f"clip_{high:g}", high)))


def _onnx_gelu(g: OnnxScope, x: str) -> str:
    if g.opset >= 20:
        return str(g.node("Gelu", x, approximate="tanh"))
    cube = g.node("Mul", g.node("Mul", x, x), g.node("Mul", x, g.constant("gelu_a", 0.044715)))
    inner = g.node("Mul", g.node("Add", x, cube), g.constant("gelu_b", 0.7978845608028654))
    half = g.node("Mul", x, g.constant("half", 0.5))
    return str(g.node("Mul", half, g.node("Add", g.node("Tanh", inner), g.constant("one", 1.0))))


def _onnx_hard_mish(g: OnnxScope, x: str) -> str:
    low = _onnx_clip(g, x, -2.0, 0.0)
    square = g.node("Mul", g.node("Mul", low, low), g.constant("half", 0.5))
    return str(g.node("Add", g.node("Add", g.node("Relu", x), square), low))


def _onnx_ramp(g: OnnxScope, x: str) -> str:
    return str(g.node("Add", g.node("Relu", x), g.node("Mul", x, g.constant("tenth", 0.1))))


def _onnx_loggy(g: OnnxScope, x: str) -> str:
    return str(g.node("Sub", g.node("Mul", g.node("Sigmoid", x), g.constant("two", 2.0)), g.constant("one", 1.0)))


def _onnx_plse(g: OnnxScope, x: str) -> str:
    middle = _onnx_clip(g, x, -4.0, 4.0)
    outside = g.node("Mul", g.node("Sub", x, middle), g.constant("hundredth", 0.01))
    sloped = g.node("Add", g.node("Mul", middle, g.constant("eighth", 0.125)), g.constant("half", 0.5))
    return str(g.node("Add", outside, sloped))


def _onnx_lhtan(g: OnnxScope, x: str) -> str:
    middle = _onnx_clip(g, x, 0.0, 1.0)
    return str(g.node("Add", middle, g.node("Mul", g.node("Sub", x, middle), g.constant("thousandth", 0.001))))


def _onnx_stair(g: OnnxScope, x: str) -> str:
    floor = g.node("Floor", x)
    step = g.node("Floor", g.node("Mul", x, g.constant("half", 0.5)))
    odd = g.node("Mod", floor, g.constant("two", 2.0), fmod=1)
    return str(g.node("Add", step, g.node("Mul", g.node("Abs", odd), g.node("Sub", x, floor))))


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("linear", _linear, _onnx_linear),
        Activation("logistic", _logistic, _op("Sigmoid")),
        Activation("relu", _relu, _op("Relu")),
        Activation("leaky", _leaky, _op("LeakyRelu", alpha=0.1)),
        Activation("mish", _mish, _onnx_mish),
        Activation("swish", _swish, _onnx_swish),
        Activation("tanh", _tanh, _op("Tanh")),
        Activation("relu6", _relu6, lambda g, x: _onnx_clip(g, x, 0.0, 6.0)),
        Activation("elu", _elu, _op("Elu")),
        Activation("selu", _selu, _op("Selu", alpha=1.6732, gamma=1.0507)),
        Activation("gelu", _gelu, _onnx_gelu),
        Activation("hard_mish", _hard_mish, _onnx_hard_mish),
        Activation("relie", _relie, _op("LeakyRelu", alpha=0.01)),
        Activation("ramp", _ramp, _onnx_ramp),
        Activation("loggy", _loggy, _onnx_loggy),
        Activation("hardtan", _hardtan, lambda g, x: _onnx_clip(g, x, -1.0, 1.0)),
        Activation("plse", _plse, _onnx_plse),
        Activation("lhtan", _lhtan, _onnx_lhtan),
        Activation("stair", _stair, _onnx_stair),
    )
}


def read_activation(context: Context, default: str = "logistic") -> str:
    """The `activation=` of a section where the workbench knows it; Darknet's own default is logistic."""
    name = context.options.text("activation", default)
    if name not in ACTIVATIONS:
        raise context.error(
            "activation",
            f"activation={name} is not known",
            expected=", ".join(sorted(ACTIVATIONS)),
            found=name,
            cause="Darknet 2018 would silently compute relu.",
        )
    return name
