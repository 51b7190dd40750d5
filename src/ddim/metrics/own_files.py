"""Extractors in files of the user's own: ONNX, weights of a network known here, or, where trusted, a program."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from ddim.engine import onnx_session
from ddim.files import read_tensors, sha256
from ddim.metrics.bundled import BaseExtractor, Colour, Digits, Extractor
from ddim.refused import Refused

FILES = "a file: .onnx, or .safetensors with weights of the mnist or colour network"


def in_file(path: Path, device: torch.device | str, taken: Collection[str], *, trust_code: bool) -> Extractor:
    """The extractor in a file; it is called as the file is, unless that name is one of those taken.

    Raises:
        Refused: it can run code and is not trusted, or is not readable as what its suffix says.
    """
    name = f"file-{path.stem}" if path.stem in taken else path.stem  # nobody's file is the standard Inception
    if path.suffix == ".onnx":
        return OnnxFile(path, name)
    if path.suffix == ".safetensors":
        return of_weights(path, name, device)
    if not trust_code:
        raise Refused(
            f"{path} would be loaded as a program (TorchScript or ExportedProgram), and such files can run any code: "
            f"give `trust_code` if you trust whoever made it, or {FILES}"
        )
    return Program(path, name, device)


class OwnFile(BaseExtractor):
    """What a network in a file returns of images (B, C, H, W) in [-1, 1]: features (B, D), or with logits (B, K)."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name, self.resize, self.weights_hash = path, name, "as the program does", sha256(path)

    def split(self, out: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features and logits, checked."""
        f, logits = (out[0], out[1]) if isinstance(out, tuple | list) and len(out) > 1 else (out, None)
        f = f[0] if isinstance(f, tuple | list) else f
        if f.ndim != 2 or len(f) != len(images):
            raise Refused(f"{self.path} must return features (B, D) for {len(images)} images, got {tuple(f.shape)}")
        return f.float().cpu(), None if logits is None else logits.float().cpu()

    def unfit(self, images: Tensor, error: BaseException) -> Refused:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:160]
        return Refused(f"{self.path} cannot take images of shape {tuple(images.shape)}: {reason}")


class OnnxFile(OwnFile):
    """An ONNX file of one input, run by ONNX Runtime on the CPU: it holds no code."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self.session, _ = onnx_session(path)
        self.inputs = [i.name for i in self.session.get_inputs()]
        if len(self.inputs) != 1:
            raise Refused(f"{path} takes {', '.join(self.inputs) or 'nothing'}: an extractor takes images alone")

    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        try:
            out = self.session.run(None, {self.inputs[0]: images.float().numpy(force=True)})
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            raise self.unfit(images, error) from None
        return self.split([torch.from_numpy(o) for o in out], images)


class Program(OwnFile):
    """A TorchScript (.pt, .ts, .torchscript) or ExportedProgram (.pt2) file. Loading it can run any code."""

    def __init__(self, path: Path, name: str, device: torch.device | str) -> None:
        super().__init__(path, name)
        self.device = device
        if not is_zipfile(path):  # both kinds are; torch would log a traceback before it says so
            raise Refused(f"{path} is no TorchScript or ExportedProgram file: not an archive")
        try:
            if path.suffix == ".pt2":
                self.network: Any = torch.export.load(path).module()
            else:
                self.network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]  # torch's
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise Refused(f"{path} is no TorchScript or ExportedProgram file: {str(error).splitlines()[0]}") from None

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        try:
            out = self.network(images.to(self.device, torch.float32))
        except (RuntimeError, ValueError, AssertionError) as error:  # torch's guards of shapes are of all three kinds
            raise self.unfit(images, error) from None
        return self.split(out, images)


def of_weights(path: Path, name: str, device: torch.device | str) -> Extractor:
    """One of the bundled networks with other weights, and as many classes as its head has.

    Raises:
        Refused: the weights are of another network.
    """
    state, told = read_tensors(path)
    for kind in (Digits, Colour):
        made: Digits | Colour = kind(device)
        own = made.network.state_dict()
        head = state.get("head.weight")
        shapes = {k: tuple(v.shape) for k, v in own.items() if not k.startswith("head.")}
        found = {k: tuple(v.shape) for k, v in state.items() if not k.startswith("head.")}
        if head is None or shapes != found or head.ndim != 2 or head.shape[1] != own["head.weight"].shape[1]:
            continue
        made.network.head = nn.Linear(head.shape[1], len(head)).requires_grad_(False).to(device)
        try:
            made.network.load_state_dict({k: v.float() for k, v in state.items()})
        except RuntimeError:  # a bias of another length, or something beside
            continue
        made.name, made.weights_hash, made.class_names = name, sha256(path), _classes(told.get("classes"), len(head))
        return made
    raise Refused(f"{path} holds weights of no network known here: mnist's or colour's; give an ONNX file")


def _classes(told: str | None, count: int) -> tuple[str, ...] | None:
    """Names of classes, as a JSON list in the file's metadata."""
    try:
        names = json.loads(told) if told else None
    except ValueError:
        names = None
    return tuple(map(str, names)) if isinstance(names, list) and len(names) == count else None
