"""Pictures: any image file to pixels, pixels to the network's range and back, PNGs with text.

Pixels are uint8 NHWC NumPy arrays (or HWC, HW for one picture); the network's images are float (B, C, H, W)
in [-1, 1]. The way between them is level = round((x + 1) 255/2), which keeps 0..255 exactly.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ddim.files import whole_file
from ddim.refused import Refused

Pixels = npt.NDArray[np.uint8]
Fit = Literal["crop", "pad", "resize"]
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
# Pillow tells files by their content, whatever their name, and for some kinds (PostScript) starts other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# What Pillow was seen to raise for damaged files, its plug-ins' slips included.
DAMAGE = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
          struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def to_uint8(x: Tensor) -> Pixels:
    """Images float (B, C, H, W) -> uint8 (B, H, W, C): round((clamp(x, -1, 1) + 1) 255/2)."""
    levels = ((x.detach().float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.movedim(-3, -1).cpu().numpy())


def refuse_broken(images: Tensor, names: Sequence[Any]) -> None:
    """Each image is finite: as 8-bit levels NaN and infinity look like any other pixel, so nobody would see them.

    Raises:
        Refused: one is not; names it.
    """
    finite = images.isfinite().flatten(1).all(1).tolist()
    if not all(finite):
        raise Refused(
            f"the image of {names[finite.index(False)]} is not finite (NaN or infinity) and was not saved: "
            "try `precision` fp32 or a `guidance` nearer 1, or check the model's weights"
        )


def from_uint8(pixels: Pixels) -> Tensor:
    """uint8 (B, H, W, C) or (H, W, C) -> float32 (B, C, H, W) or (C, H, W) in [-1, 1]: level/127.5 - 1."""
    return torch.from_numpy(np.array(pixels)).movedim(-1, -3).float() / 127.5 - 1.0


def open_image(
    source: str | Path | bytes, tell_mode: Callable[[str], None] | None = None, name: str | None = None
) -> Image.Image:
    """One image file (or its bytes) as an upright 8-bit picture of mode L or RGB.

    EXIF rotation is applied; 16-bit grey is scaled by 1/257; a palette becomes the colours it names (grey if
    all of them are); transparent pixels are composited on white; CMYK and other spaces become RGB.

    Args:
        source: the file.
        tell_mode: is told the mode of the file, before anything is converted.
        name: what errors call the image; default: its path.

    Raises:
        Refused: not an image, truncated, too large, or of a kind without an agreed range; names the file.
    """
    name = name or ("the image" if isinstance(source, bytes) else str(source))
    if not isinstance(source, bytes) and not stat.S_ISREG(Path(source).stat().st_mode):
        raise Refused(f"{name} cannot be read as an image: it is no file")  # a pipe would be waited for, for ever
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as file:
            if tell_mode is not None:
                tell_mode(file.mode)
            file.load()
            # Not ImageOps.exif_transpose: it writes the other tags anew, and fails where one of them is odd.
            turn = UPRIGHT.get(file.getexif().get(ORIENTATION, 1))
            rangeless = _rangeless(file)
            picture = None if rangeless else _plain(file if turn is None else file.transpose(turn))
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise Refused(f"{name} cannot be read as an image: {_first_line(error)}") from None
    if picture is None:
        raise Refused(f"{name} holds {rangeless}, which have no agreed range; save it as 8 or 16 bit")
    return picture


def _rangeless(file: Image.Image) -> str | None:
    """What its numbers are, where nobody can say which of them are black and white."""
    if file.mode == "F":
        return "32-bit floats"
    sixteen = file.mode != "I" or file.format in ("PNG", "PPM")  # theirs of mode I are 0..65535
    return None if sixteen else "32-bit or signed whole numbers"


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.float64).clip(0, 65535)
        deep[deep == image.info.get("transparency", -1)] = 65535
        return Image.fromarray(np.round(deep / 257).astype(np.uint8))
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
        return flat.convert("L") if image.mode in ("1", "L", "LA") or (image.mode == "P" and _is_grey(flat)) else flat
    if image.mode in ("1", "L"):
        return image.convert("L")
    rgb = image.convert("RGB")
    return rgb.convert("L") if image.mode == "P" and _is_grey(rgb) else rgb


def _is_grey(image: Image.Image) -> bool:
    p = np.asarray(image)
    return bool((p[..., 0] == p[..., 1]).all() and (p[..., 1] == p[..., 2]).all())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def fitted(
    image: Image.Image, size: tuple[int, int], fit: Fit = "crop", inner: tuple[int, int] | None = None
) -> Image.Image:
    """The picture at size (H, W): cut to the middle ("crop") or with black borders ("pad"), its proportions kept; or
    stretched ("resize").

    Args:
        inner: size (H, W) the picture itself is brought to, by `fit`; black borders fill the rest.

    Raises:
        Refused: `inner` is larger than `size`.
    """
    if inner is not None and inner != size:
        if inner[0] > size[0] or inner[1] > size[1]:
            wide = f"{inner[0]}x{inner[1]} do not fit into {size[0]}x{size[1]}"
            raise Refused(f"pictures of {wide}: give a `size` no larger")
        canvas = Image.new(image.mode, (size[1], size[0]))
        canvas.paste(fitted(image, inner, fit), ((size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2))
        return canvas
    height, width = size
    if image.size == (width, height):
        return image
    if fit == "resize":
        return image.resize((width, height), Image.Resampling.LANCZOS)
    if fit == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS)


def as_pixels(image: Image.Image, channels: int) -> Pixels:
    """The picture as uint8 (H, W, C) with 1 (grey) or 3 (RGB) channels.

    Raises:
        Refused: any other number of channels.
    """
    if channels not in (1, 3):
        raise Refused(f"image files have 1 (grey) or 3 (RGB) channels, got channels = {channels}")
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels[..., None] if channels == 1 else pixels


def read_image(
    source: str | Path | bytes, shape: tuple[int, int, int] | None = None, fit: Fit = "crop",
    inner: tuple[int, int] | None = None,
) -> Tensor:  # fmt: skip
    """One image file as float32 (C, H, W) in [-1, 1], in the given shape (C, H, W), see `fitted`, or as the file is.

    Raises:
        Refused: see `open_image`. OSError: no such file.
    """
    image = open_image(source)
    if shape is not None:
        image = fitted(image, shape[1:], fit, inner)
    channels = shape[0] if shape is not None else len(image.getbands())
    return from_uint8(as_pixels(image, channels))


def save_png(path: str | Path, pixels: Pixels | Image.Image, text: Mapping[str, str] | None = None) -> None:
    """Write one picture as `png_of` gives it; whole or not at all."""
    content = png_of(pixels, text)
    with whole_file(path) as partial:
        partial.write_bytes(content)


def png_of(pixels: Pixels | Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """One picture, uint8 (H, W), (H, W, 1) or (H, W, 3), as a PNG with text in its metadata."""
    image = pixels if isinstance(pixels, Image.Image) else as_picture(pixels)
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    content = io.BytesIO()
    image.save(content, format="PNG", pnginfo=info)
    return content.getvalue()


def as_picture(pixels: Pixels) -> Image.Image:
    """uint8 (H, W), (H, W, 1) or (H, W, 3) as a picture, grey or RGB."""
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
