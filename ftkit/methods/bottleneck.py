"""Bottleneck adapters on a decoder of transformers: attach, switch, save and load them.

This file imports torch and safetensors and nothing of ftkit, so that an export can be served with a copy of it:

    model = AutoModelForCausalLM.from_pretrained(base)
    model = load(model, "adapter/")

With A(x) = scaling * up(act(down(x))), ``branch`` what attention or the feed-forward adds to the residual stream
(after a post-norm where there is one), and ``stream`` what the norm in front of the feed-forward reads:

    houlsby    branch + A(branch), after attention and, with weights of its own, after the feed-forward
    pfeiffer   branch + A(stream + branch), after the feed-forward
    parallel   branch + A(stream), beside the feed-forward

`save` writes two files. ``adapter_model.safetensors`` holds float32 tensors ``layers.0.ffn.down.weight``: the
layer's number, ``attention`` or ``ffn``, ``down`` (inner, width) or ``up`` (width, inner), ``weight`` or ``bias``.
``adapter_config.json`` holds ``format`` ("ftkit-bottleneck"), ``format_version`` (1), ``adapter`` (the fields of
`BottleneckConfig`), the base's ``width``, ``layer_count`` and ``model_type``, and any keys of the caller's.

The stream is kept on the layer while that layer runs: a model serves one thread at a time.

Source:
    Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2021, arXiv:2005.00247; He et al. 2022, arXiv:2110.04366.
    Placement and arithmetic as DoubleSeqBnConfig, SeqBnConfig and ParBnConfig of adapter-hub's ``adapters``.
"""

# No postponed annotations: with them a dataclass can only be made in a module that sys.modules lists, and whoever
# loads this file by its path may not have listed it.
import contextlib
import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

FORMAT, FORMAT_VERSION = "ftkit-bottleneck", 1
CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
PLACES = {"houlsby": ("attention", "ffn"), "pfeiffer": ("ffn",), "parallel": ("ffn",)}
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_new": functools.partial(nn.functional.gelu, approximate="tanh"),
    "silu": nn.functional.silu,
    "swish": nn.functional.silu,
    "tanh": torch.tanh,
    "leaky_relu": nn.functional.leaky_relu,
}
# Name under which a decoder layer holds its adapters.
CHILD = "bottleneck_adapters"


class BottleneckError(ValueError):
    """What was wrong and what to do about it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottleneckConfig:
    """Settings of one adapter; values are checked when it is built.

    Attributes:
        architecture: Where the adapters stand and what they read; see the module.
        reduction_factor: Width of the model over width of the bottleneck; below 1 the bottleneck is the wider one.
        non_linearity: A key of `ACTIVATIONS`.
        scaling: Factor on the correction.
        dropout: Dropout on the correction, while training.

    Raises:
        BottleneckError: A value is out of range.
    """

    architecture: Literal["houlsby", "pfeiffer", "parallel"]
    reduction_factor: float = 16.0
    non_linearity: str = "relu"
    scaling: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("architecture", PLACES), ("non_linearity", ACTIVATIONS)):
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in known:
                raise BottleneckError(f"unknown {name} {getattr(self, name)!r}", f"Use one of {', '.join(known)}.")
        for name in ("reduction_factor", "scaling", "dropout"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise BottleneckError(f"{name} is {value!r}", "Use a finite number.")
            # 16 and 16.0 are one setting; written as one, so that equal adapters are equal files.
            object.__setattr__(self, name, float(value))
        if self.reduction_factor <= 0:
            raise BottleneckError(f"reduction_factor is {self.reduction_factor:g}", "It must be above 0.")
        if self.scaling == 0:
            raise BottleneckError(
                "scaling is 0, so that the adapter could never act", "Use 1.0, or 4.0 for parallel."
            )
        if not 0 <= self.dropout < 1:
            raise BottleneckError(f"dropout is {self.dropout:g}", "It must be at least 0 and below 1.")

    def bottleneck_width(self, width: int) -> int:
        """Units of the bottleneck in a model of this width: ``width // reduction_factor``.

        Raises:
            BottleneckError: The factor is larger than the width, which leaves no unit.
        """
        if self.reduction_factor > width:
            raise BottleneckError(
                f"reduction_factor {self.reduction_factor:g} is larger than the model's width, {width}",
                f"Use at most {width}.",
            )
        return int(width // self.reduction_factor)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave, back.

        Raises:
            BottleneckError: A key is unknown or missing, or a value is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        wrong = [f"unknown key {key!r}" for key in values if key not in known]
        wrong += [f"no key {key!r}" for key in known if key not in values]
        if wrong:
            raise BottleneckError(f"adapter settings: {', '.join(wrong)}", f"The keys are {', '.join(known)}.")
        return cls(**values)


class Bottleneck(nn.Module):
    """``scaling * up(act(down(hidden)))``, the correction alone.

    ``up`` starts at zero, so an untrained adapter leaves the base exactly as it was; ``down`` is drawn from
    N(0, 0.02) with torch's global CPU generator, whatever the device. (adapter-hub draws ``up`` too.)

    Args:
        width: Width of the model.
        config: See `BottleneckConfig`.
    """

    def __init__(self, width: int, config: BottleneckConfig) -> None:
        super().__init__()
        inner = config.bottleneck_width(width)
        self.config = config
        # Float32 also where the default dtype is another: updates of a 16-bit weight would be rounded away.
        self.down = nn.Linear(width, inner, dtype=torch.float32)
        self.up = nn.Linear(inner, width, dtype=torch.float32)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The correction, to be added by the caller.

        Args:
            hidden: (batch, tokens, width), any float dtype.

        Returns:
            Same shape and dtype; computed in the parameters' dtype, or in autocast's where it is on.
        """
        inner = ACTIVATIONS[self.config.non_linearity](self.down(hidden.to(self.down.weight.dtype)))
        correction: torch.Tensor = self.dropout(self.up(inner) * self.config.scaling)
        return correction.to(hidden.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wiring:
    """Names of three direct children of a decoder layer.

    Attributes:
        attention: Its output is attention's branch.
        ffn: Its output is the feed-forward's branch.
        stream: Its input is the residual stream that the feed-forward builds on.
    """

    attention: str
    ffn: str
    stream: str


class LayerAdapters(nn.Module):
    """The adapters of one decoder layer by name, and the hooks that put the active one to work.

    Hooks are bound methods, which ``copy.deepcopy`` binds to the copy; closures would go on acting on the original.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.stream: torch.Tensor | None = None
        self.handles: list[Any] = []

    def connect(self, layer: nn.Module, wiring: Wiring | None) -> None:
        """Hook into the layer; without wiring, so that the layer refuses to run."""
        if wiring is None:
            self.handles = [layer.register_forward_pre_hook(self._refuse)]
            return
        child = layer.get_submodule
        self.handles = [
            child(wiring.attention).register_forward_hook(self._after_attention),
            child(wiring.stream).register_forward_pre_hook(self._keep_stream, with_kwargs=True),
            child(wiring.ffn).register_forward_hook(self._after_ffn),
            # For a layer that an exception ends; `_after_ffn` alone would keep its stream, and with it its graph.
            layer.register_forward_hook(self._drop_stream, always_call=True),
        ]

    def _at(self, place: str) -> Bottleneck | None:
        if self.active is None or place not in self.adapters[self.active]:
            return None
        adapter: Bottleneck = self.adapters[self.active][place]
        return adapter

    def _after_attention(self, module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG002 torch's signature
        adapter = self._at("attention")
        return None if adapter is None else _corrected(output, adapter(_branch(output)))

    def _keep_stream(self, module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        if self.active is not None:
            self.stream = _first_tensor([*args, *kwargs.values()])

    def _after_ffn(self, module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG002
        # Let go before the adapter runs: recomputing under gradient checkpointing ends inside it, by an exception.
        stream, self.stream = self.stream, None
        adapter, branch = self._at("ffn"), _branch(output)
        if adapter is None:
            return None
        assert stream is not None, "the feed-forward ran before what feeds it"
        reads = {"houlsby": lambda: branch, "pfeiffer": lambda: stream + branch, "parallel": lambda: stream}
        return _corrected(output, adapter(reads[adapter.config.architecture]()))

    def _drop_stream(self, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG002
        self.stream = None

    def _refuse(self, module: nn.Module, args: Any) -> None:  # noqa: ARG002
        raise BottleneckError(
            "the adapter was attached on the meta device, where a layer's wiring cannot be seen",
            "Load the model's weights first, then attach.",
        )


def _branch(output: Any) -> Any:
    return output[0] if isinstance(output, (tuple, list)) else output


def _corrected(output: Any, correction: torch.Tensor) -> Any:
    branch = _branch(output)
    total = branch + correction.to(branch.dtype)
    return type(output)([total, *output[1:]]) if isinstance(output, (tuple, list)) else total


def _first_tensor(values: Iterable[Any]) -> torch.Tensor | None:
    return next((value for value in values if isinstance(value, torch.Tensor)), None)


def _takes(module: nn.Module, parameter: str) -> bool:
    return parameter in inspect.signature(module.forward).parameters


def _parts(layer: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the children that attend, and of the others that multiply by a matrix."""
    children = [(name, child) for name, child in layer.named_children() if name != CHILD]
    attend = [name for name, child in children if _takes(child, "attention_mask")]
    multiply = [name for name, child in children if any(weight.dim() >= 2 for weight in child.parameters())]
    return attend, [name for name in multiply if name not in attend]


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, found by their structure: each has one attention and one feed-forward.

    Raises:
        BottleneckError: There are none, or they are of a kind on which adapters have no place.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise BottleneckError("this is an encoder-decoder model", "Use a decoder-only model.")
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    stacks = [layers for layers in lists if all(all(_parts(layer)) for layer in layers)]
    if len(stacks) != 1:
        found = f"{len(stacks)} stacks of" if stacks else "no"
        raise BottleneckError(
            f"{type(model).__name__} has {found} decoder layers (an attention beside a feed-forward)",
            "Use a decoder-only language model.",
        )
    for layer in stacks[0]:
        _require_one_of_each(layer)
    return list(stacks[0])


def _require_one_of_each(layer: nn.Module) -> None:
    kind, (attention, ffn) = type(layer).__name__, _parts(layer)
    for role, names in (("attention", attention), ("feed-forward", ffn)):
        if len(names) > 1:
            raise BottleneckError(f"{kind} has more than one {role}: {', '.join(names)}", "Use another method.")
    if _takes(layer.get_submodule(ffn[0]), "residual"):
        raise BottleneckError(
            f"{kind} adds the residual inside its feed-forward, so that its branch cannot be seen",
            "Use another method.",
        )


def _width(model: nn.Module) -> int:
    try:
        return int(model.config.get_text_config().hidden_size)
    except AttributeError:
        raise BottleneckError(
            f"{type(model).__name__} has no config with a hidden_size", "Use a model of transformers."
        ) from None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, then each module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            # Quantised layers stay in training mode: in eval mode bitsandbytes repacks 4-bit weights on some CPUs,
            # for good, and a repacked layer has no backward pass.
            weights = module.parameters(recurse=False)
            module.training = any(not weight.is_floating_point() for weight in weights)
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _trace(model: nn.Module, layers: Sequence[nn.Module]) -> list[dict[str, tuple[Any, Any]]]:
    """Input and output of each layer ("") and of its children, by name, in a forward pass over two tokens."""
    calls: list[dict[str, tuple[Any, Any]]] = [{} for _ in layers]

    def record(at: int, name: str, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls[at][name] = (_first_tensor([*args, *kwargs.values()]), _branch(output))

    handles = []
    try:
        for at, layer in enumerate(layers):
            for name, module in [("", layer), *layer.named_children()]:
                hook = functools.partial(record, at, name)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
        ids = torch.zeros((1, 2), dtype=torch.long, device=model.get_input_embeddings().weight.device)
        with _evaluating(model), torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _wiring(layer: nn.Module, calls: Mapping[str, tuple[Any, Any]], width: int) -> Wiring:
    """Which children stand where, told by which tensor, by identity, goes into which child."""
    kind, ((attention,), (ffn,)) = type(layer).__name__, _parts(layer)
    for name in (attention, ffn):
        shape = getattr(calls.get(name, (None, None))[1], "shape", None)
        if shape is None or shape[-1] != width:
            raise BottleneckError(
                f"{kind}.{name} gives {'nothing' if shape is None else f'width {shape[-1]}'} where the model's width "
                f"is {width}",
                "Use another method.",
            )
    # What hands its input through, as dropout does outside training, is no norm.
    children = {name: (given, output) for name, (given, output) in calls.items() if name and output is not given}
    if any(output is calls[""][1] for _, output in children.values()):
        raise BottleneckError(
            f"{kind} normalises after adding, so that its residual stream cannot be seen", "Use another method."
        )

    def added(branch: str) -> str:
        readers = [name for name, (given, _) in children.items() if given is children[branch][1]]
        return readers[0] if readers else branch

    norms = [name for name, (_, output) in children.items() if output is children[ffn][0]]
    return Wiring(attention=added(attention), ffn=added(ffn), stream=norms[0] if norms else ffn)


def _sites(layers: Sequence[nn.Module]) -> list[LayerAdapters]:
    return [getattr(layer, CHILD) for layer in layers if hasattr(layer, CHILD)]


def _connect(model: nn.Module, layers: Sequence[nn.Module], width: int) -> list[LayerAdapters]:
    """Give each layer its empty `LayerAdapters`; nothing is changed if a layer cannot take it."""
    wirings: list[Wiring | None] = [None] * len(layers)
    if not any(weight.is_meta for layer in layers for weight in layer.parameters()):
        wirings = [_wiring(layer, calls, width) for layer, calls in zip(layers, _trace(model, layers), strict=True)]
    for layer, wiring in zip(layers, wirings, strict=True):
        site = LayerAdapters()
        site.connect(layer, wiring)
        layer.add_module(CHILD, site)
    return _sites(layers)


def _bottlenecks(width: int, config: BottleneckConfig) -> nn.ModuleDict:
    return nn.ModuleDict({place: Bottleneck(width, config) for place in PLACES[config.architecture]})


def attach(model: nn.Module, config: BottleneckConfig, name: str = "default", *, train: bool = False) -> nn.Module:
    """Put an untrained adapter on every decoder layer and make it the active one.

    The first one costs a forward pass over two tokens, which shows how the layers are wired. On the meta device
    there is none: the parameters can be counted, but the layers refuse to run.

    Args:
        model: A decoder-only model of transformers, also one in 4 or 8 bits; it is changed and returned.
        config: See `BottleneckConfig`.
        name: Several adapters can stand on one model; see `set_active`.
        train: Whether the adapter, and nothing else, is to be trained. Otherwise it is frozen, the rest as it was.

    Raises:
        BottleneckError: The model has no place for adapters, the bottleneck does not fit, or the name is taken.
    """
    layers, width = decoder_layers(model), _width(model)
    config.bottleneck_width(width)
    if name in attached(model) or not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise BottleneckError(f"an adapter cannot be named {name!r} here", "Give it another name, without dots.")
    sites = _sites(layers) or _connect(model, layers, width)
    if train:
        model.requires_grad_(False)
    for layer, site in zip(layers, sites, strict=True):
        device = next(layer.parameters()).device
        with torch.device("meta" if device.type == "meta" else "cpu"):
            adapter = _bottlenecks(width, config)
        site.adapters[name] = adapter.to(device).train(layer.training).requires_grad_(train)
    set_active(model, name)
    return model


def attached(model: nn.Module) -> list[str]:
    """Names of the adapters on a model."""
    return [name for site in _sites(decoder_layers(model))[:1] for name in site.adapters]


def _require_attached(model: nn.Module, name: str) -> None:
    names = attached(model)
    if name not in names:
        fix = f"Attached are: {', '.join(names)}." if names else "None is attached."
        raise BottleneckError(f"no adapter {name!r} is attached", fix)


def set_active(model: nn.Module, name: str | None) -> None:
    """Let one adapter act, or with None the bare base.

    Raises:
        BottleneckError: No adapter of that name is attached.
    """
    if name is not None:
        _require_attached(model, name)
    for site in _sites(decoder_layers(model)):
        site.active = name


def detach(model: nn.Module, name: str = "default") -> nn.Module:
    """Take an adapter off; with the last one go all hooks and modules.

    Raises:
        BottleneckError: No adapter of that name is attached.
    """
    _require_attached(model, name)
    for layer in decoder_layers(model):
        site: LayerAdapters = getattr(layer, CHILD)
        del site.adapters[name]
        site.active = None if site.active == name else site.active
        if not site.adapters:
            for handle in site.handles:
                handle.remove()
            delattr(layer, CHILD)
    return model


def _facts(model: nn.Module, layers: Sequence[nn.Module]) -> dict[str, Any]:
    """What a saved adapter and its base must agree on."""
    width = _width(model)
    return {
        "width": width,
        "layer_count": len(layers),
        "model_type": model.config.get_text_config().model_type,
    }


def save(model: nn.Module, folder: str | Path, name: str = "default", extra: Mapping[str, Any] | None = None) -> None:
    """Write one adapter in the format that the module describes.

    Args:
        model: The model it is attached to.
        folder: Made where it does not exist.
        name: Which adapter.
        extra: Further keys for adapter_config.json.

    Raises:
        BottleneckError: No adapter of that name is attached, or ``extra`` has a key of the format's.
    """
    _require_attached(model, name)
    layers = decoder_layers(model)
    adapters = [site.adapters[name] for site in _sites(layers)]
    config = next(iter(adapters[0].values())).config
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "adapter": config.to_dict(),
        **_facts(model, layers),
    }
    if clash := sorted(values.keys() & (extra or {}).keys()):
        raise BottleneckError(f"extra has keys of the format's own: {', '.join(clash)}", "Rename them.")
    tensors = {
        f"layers.{at}.{key}": tensor.detach().to("cpu", torch.float32).contiguous()
        for at, adapter in enumerate(adapters)
        for key, tensor in adapter.state_dict().items()
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / TENSOR_FILE, metadata={"format": "pt"})
    text = json.dumps({**values, **(extra or {})}, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def load(model: nn.Module, folder: str | Path, name: str = "default", *, train: bool = False) -> nn.Module:
    """Put what `save` wrote onto a freshly loaded base and make it active; nothing in the folder is executed.

    Args:
        model: The base the adapter was trained on; it is changed and returned.
        folder: Holds the two files.
        name: What the adapter is called from now on.
        train: As for `attach`.

    Raises:
        BottleneckError: The folder is damaged, or was made for another base. The model is then as it was.
    """
    folder = Path(folder)
    values = _read_config(folder / CONFIG_FILE)
    config = BottleneckConfig.from_dict(values["adapter"])
    layers = decoder_layers(model)
    for key, here in _facts(model, layers).items():
        if values.get(key) != here:
            raise BottleneckError(
                f"{key} is {values.get(key)!r} in {folder / CONFIG_FILE}, and {here!r} in the base",
                "Load the base model that the adapter was trained on.",
            )
    tensors = _read_tensors(folder / TENSOR_FILE, _shapes(len(layers), _width(model), config))
    with torch.random.fork_rng(devices=[]):  # the values drawn are overwritten: leave the generator as it was
        attach(model, config, name, train=train)
    for at, site in enumerate(_sites(layers)):
        head = f"layers.{at}."
        mine = {key.removeprefix(head): tensor for key, tensor in tensors.items() if key.startswith(head)}
        site.adapters[name].load_state_dict(mine)
    return model


def _shapes(layer_count: int, width: int, config: BottleneckConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        one = _bottlenecks(width, config).state_dict()
    return {f"layers.{at}.{key}": tuple(tensor.shape) for at in range(layer_count) for key, tensor in one.items()}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BottleneckError(f"{path} cannot be read: {error}", "Export the adapter again.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise BottleneckError(f"{path} is no adapter of format {FORMAT!r}", "Name a folder that `save` wrote.")
    if values.get("format_version") != FORMAT_VERSION:
        version = values.get("format_version")
        raise BottleneckError(f"{path} is of format_version {version!r}", f"This reads version {FORMAT_VERSION}.")
    if not isinstance(values.get("adapter"), dict):
        raise BottleneckError(f"{path} holds no adapter settings", "Export the adapter again.")
    return values


def _read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The file's tensors, which must be those of the adapter, all of them and no other."""
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BottleneckError(f"{path} cannot be read: {error}", "Export the adapter again.") from error
    wrong = [f"no tensor {key}" for key in shapes if key not in tensors]
    wrong += [f"surplus tensor {key}" for key in tensors if key not in shapes]
    for key in [key for key in shapes if key in tensors]:
        given, wanted = (tensors[key].dtype, tuple(tensors[key].shape)), (torch.float32, shapes[key])
        if given != wanted:
            wrong.append(f"{key} is {given[0]} {given[1]}, not {wanted[0]} {wanted[1]}")
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise BottleneckError(f"{path}: {', '.join(wrong[:3])}{more}", "Export the adapter again.")
    return tensors
