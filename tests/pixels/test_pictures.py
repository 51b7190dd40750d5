import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ddim import Refused
from ddim.pixels import as_pixels, fitted, from_uint8, grid, open_image, read_image, save_png, to_uint8


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_every_level_survives_the_way_to_floats_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = from_uint8(levels)
    assert x.shape == (1, 1, 16, 16) and float(x.min()) == -1.0 and float(x.max()) == 1.0
    assert float(x.flatten()[51]) == pytest.approx(51 * 2 / 255 - 1, abs=1e-7)
    assert np.array_equal(to_uint8(x), levels)


def test_to_uint8_rounds_and_clamps():
    x = torch.tensor([-9.0, -1.0, -0.999, 0.0, 0.999, 1.0, 9.0]).view(1, 1, 1, 7)
    assert to_uint8(x).flatten().tolist() == [0, 0, 0, 128, 255, 255, 255]  # 127.5 to even, 254.87 up


def test_channels_are_last_in_pixels_and_first_in_tensors():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    x = from_uint8(pixels)
    assert x.shape == (2, 3, 2, 2)
    assert float(x[1, 2, 0, 1]) == pytest.approx(float(pixels[1, 0, 1, 2]) / 127.5 - 1)


def test_sixteen_bit_grey_is_scaled_not_cut(tmp_path):
    """0, 257 k and 65535 are 0, k and 255 in 8 bits; cutting to the low byte would give 1 for 257."""
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    image = open_image(saved(tmp_path, Image.fromarray(values)))
    assert image.mode == "L" and np.asarray(image).tolist() == [[0, 1, 128, 255]]


def test_transparent_pixels_are_composited_on_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    image = open_image(saved(tmp_path, Image.fromarray(rgba)))
    assert np.asarray(image)[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127]]
    la = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    image = open_image(saved(tmp_path, Image.fromarray(la, mode="LA"), "la.png"))
    assert image.mode == "L" and np.asarray(image).tolist() == [[10, 255]]


def test_a_palette_becomes_its_colours_and_a_grey_one_grey(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([9, 8, 7, 200, 100, 50] + [0] * 762)
    assert np.asarray(open_image(saved(tmp_path, image)))[0].tolist() == [[9, 8, 7], [200, 100, 50]]
    image.putpalette([9, 9, 9, 200, 200, 200] + [0] * 762)
    grey = open_image(saved(tmp_path, image, "grey.png"))
    assert grey.mode == "L" and np.asarray(grey).tolist() == [[9, 200]]


def test_exif_rotation_is_applied(tmp_path):
    """Orientation 6 says: turn by 90 degrees clockwise to view; the left column becomes the top row."""
    picture = Image.new("RGB", (32, 16), "black")
    picture.paste("white", (0, 0, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, picture, "photo.JPG", exif=exif, quality=95)
    upright = np.asarray(open_image(path))
    assert upright.shape == (32, 16, 3)
    assert upright[:6].mean() > 240 and upright[12:].mean() < 15


def test_bilevel_and_cmyk(tmp_path):
    one = open_image(saved(tmp_path, Image.fromarray(np.array([[True, False]])), "one.png"))
    assert one.mode == "L" and np.asarray(one).tolist() == [[255, 0]]
    assert open_image(saved(tmp_path, Image.new("CMYK", (4, 4)), "c.jpg")).mode == "RGB"


def test_unreadable_files_are_named(tmp_path):
    text = tmp_path / "note.png"
    text.write_text("not a picture")
    with pytest.raises(ValueError, match=r"note\.png cannot be read as an image"):
        open_image(text)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(buffer, "PNG")
    cut = tmp_path / "cut.png"
    cut.write_bytes(buffer.getvalue()[:1500])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read as an image"):
        open_image(cut)
    broken = bytearray(buffer.getvalue())
    broken[16:20] = struct.pack(">I", 0)  # width 0 in the header
    with pytest.raises(ValueError, match="cannot be read as an image"):
        open_image(bytes(broken))
    with pytest.raises(ValueError, match="no agreed range"):
        open_image(saved(tmp_path, Image.fromarray(np.zeros((2, 2), np.float32)), "float.tiff"))
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "none.png")


def test_crop_keeps_the_middle_and_pad_keeps_all():
    picture = Image.new("L", (90, 30), 0)
    picture.paste(255, (30, 0, 60, 30))  # black, white, black: three squares
    assert np.asarray(fitted(picture, (30, 30), "crop")).min() == 255
    padded = np.asarray(fitted(picture, (30, 30), "pad"))
    assert padded.shape == (30, 30) and padded[:8].max() == 0 and padded[15, 15] > 250 and padded[15, 2] < 5


def test_an_image_in_the_shape_a_network_wants(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (40, 20), (255, 0, 0)))
    x = read_image(path, (3, 8, 12))
    assert x.shape == (3, 8, 12) and x[0].min() == 1.0 and x[1].max() == -1.0
    assert read_image(path, (1, 8, 12)).flatten()[0] == pytest.approx(76 / 127.5 - 1)  # ITU-R 601: 0.299 * 255
    assert read_image(path).shape == (3, 20, 40)
    with pytest.raises(ValueError, match="got channels = 4"):
        as_pixels(Image.new("RGB", (2, 2)), 4)


def test_png_text_and_no_partial_file(tmp_path):
    path = tmp_path / "x.png"
    save_png(path, np.full((4, 6, 1), 7, np.uint8), {"ddim": '{"seed": 3}'})
    with Image.open(path) as image:
        assert image.mode == "L" and image.size == (6, 4) and image.text == {"ddim": '{"seed": 3}'}
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_grid_places_pictures_row_by_row():
    tiles = [np.full((4, 5), 10 * (i + 1), np.uint8) for i in range(6)]
    pixels = np.asarray(grid(tiles, columns=3, gap=1))
    assert pixels.shape == (1 + 2 * 5, 1 + 3 * 6)
    assert [int(pixels[2, 2 + 6 * c]) for c in range(3)] == [10, 20, 30]
    assert [int(pixels[7, 2 + 6 * c]) for c in range(3)] == [40, 50, 60]
    assert pixels[0].min() == 255  # white between


def test_grid_labels_make_room_and_must_match():
    tiles = np.zeros((4, 20, 20, 3), np.uint8)
    plain = grid(tiles, 2)
    labelled = grid(tiles, 2, row_labels=["5 steps", "10 steps"], column_labels=["0", "1"])
    assert labelled.width > plain.width + 40 and labelled.height > plain.height + 10
    words = np.asarray(labelled.convert("L"))[:, : labelled.width - plain.width]
    assert words.min() < 100  # the words are there, left of the pictures
    with pytest.raises(ValueError, match="2 rows but 1 row labels"):
        grid(tiles, 2, row_labels=["x"])
    with pytest.raises(ValueError, match="at least one image"):
        grid([])


def test_odd_exif_turns_the_picture_and_stops_nothing():
    """A text where EXIF wants a number: Pillow can read such a tag, but not write it anew."""
    entries = [(0x0100, 2, 2, b"a\0\0\0"), (0x0112, 3, 1, b"\6\0\0\0")]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHI4s", *e) for e in entries)
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8)).save(buffer, "JPEG", exif=b"Exif\0\0" + tiff + bytes(4))
    assert open_image(buffer.getvalue()).size == (8, 12)


@pytest.mark.parametrize(
    "error", [struct.error, zlib.error, TypeError, KeyError, IndexError, OverflowError, ValueError]
)
def test_whatever_a_damaged_file_does_to_pillow_its_name_is_told(tmp_path, monkeypatch, error):
    path = saved(tmp_path, Image.new("L", (4, 4)))

    def fail(*_, **__):
        raise error("odd")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: .*odd"):
        open_image(path)


def test_transparent_grey_is_composited_on_white_too(tmp_path):
    """0 is declared transparent (tRNS), in 8 bit, 1 bit, 16 bit and as a palette."""
    grey = Image.fromarray(np.array([[0, 100]], dtype=np.uint8))
    assert np.asarray(open_image(saved(tmp_path, grey, transparency=0))).tolist() == [[255, 100]]
    black = open_image(saved(tmp_path, Image.new("1", (2, 1), 0), "one.png", transparency=0))
    assert black.mode == "L" and np.asarray(black).tolist() == [[255, 255]]
    deep = Image.fromarray(np.array([[0, 257]], dtype=np.uint16))
    assert np.asarray(open_image(saved(tmp_path, deep, "deep.png", transparency=0))).tolist() == [[255, 1]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 128, 128, 128] + [0] * 762)
    flat = open_image(saved(tmp_path, palette, "p.png", transparency=0))
    assert flat.mode == "L" and np.asarray(flat).tolist() == [[255, 128]]


def test_whole_numbers_of_no_agreed_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"i\.tiff holds 32-bit or signed whole numbers, which have no agreed range"):
        open_image(saved(tmp_path, Image.fromarray(np.full((4, 4), 200, np.int32)), "i.tiff"))
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 257, 65535))  # Pillow calls this mode I as well
    assert np.asarray(open_image(path)).tolist() == [[1, 255]]


def test_a_postscript_file_called_photo_png_starts_no_other_program(tmp_path, monkeypatch):
    """Pillow tells PostScript by its first bytes, whatever the name, and hands it to Ghostscript."""
    from PIL import EpsImagePlugin

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *words: started.append(words))
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "photo.png").write_bytes(page)
    for source in (tmp_path / "photo.png", page):
        with pytest.raises(Refused, match="cannot be read as an image"):
            open_image(source)
    assert not started


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_every_raster_format_we_mean_is_read(kind, tmp_path):
    Image.new("RGB", (4, 3), (200, 100, 50)).save(tmp_path / "x", format=kind)
    assert open_image(tmp_path / "x").size == (4, 3)


def test_phones_jpegs_of_several_pictures_are_read(tmp_path):
    first = Image.new("RGB", (4, 3), (200, 100, 50))
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (4, 3))])
    assert open_image(tmp_path / "x.jpg").getpixel((0, 0))[0] > 150
