"""Images that the examples draw, so that they need no download: leaves, metal plates, cells.

Each function returns images as an array (n, SIZE, SIZE, 3) of 8 bits and what is known of them.
The same `random_state` draws the same images.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 96  # pixels a side
_SCALE = 3  # shapes are drawn larger and scaled down, which makes their edges smooth
_LARGE = _SCALE * SIZE


def leaves(n_of_each, kinds=("healthy", "rust", "mildew", "blight"), random_state=0):
    """Draw leaves on a bench, and return them with the names of their diseases."""
    rng = np.random.default_rng(random_state)
    y = np.repeat(kinds, n_of_each)
    rng.shuffle(y)
    return np.stack([_leaf(kind, rng) for kind in y]), y


def plates(counts, random_state=0):
    """Draw plates of rolled metal: `counts` of each kind, "good", "scratch", "pits" or "crack"."""
    rng = np.random.default_rng(random_state)
    y = np.repeat(list(counts), list(counts.values()))
    rng.shuffle(y)
    return np.stack([_plate(kind, rng) for kind in y]), y


def cells(n, random_state=0):
    """Draw cells under a microscope; return images, number of cells, and which markers shine.

    Markers are a table of 0 and 1 with the columns "green" and "red", and "dividing": whether
    there are cells with two nuclei.
    """
    rng = np.random.default_rng(random_state)
    counts = rng.integers(3, 25, n)
    markers = (rng.random((n, 3)) < (0.5, 0.4, 0.4)).astype(int)
    drawn = [_cells(*what, rng) for what in zip(counts, markers, strict=True)]
    return np.stack(drawn), counts, markers


def as_files(images):
    """Write images into a new temporary folder; return their paths, as an array."""
    folder = Path(tempfile.mkdtemp())
    paths = np.array([str(folder / f"{i:04d}.png") for i in range(len(images))], dtype=object)
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def _leaf(kind, rng):
    bench = np.array([214, 206, 190]) + rng.normal(0, 8, 3) + rng.normal(0, 6)
    image = Image.new("RGB", (_LARGE, _LARGE), _colour(bench))
    length, width = rng.uniform(0.74, 0.88) * _LARGE, rng.uniform(0.34, 0.46) * _LARGE
    angle, bend = rng.uniform(-0.6, 0.6), rng.uniform(-0.12, 0.12)
    centre = _LARGE / 2 + rng.uniform(-0.03, 0.03, 2) * _LARGE

    def place(along, across):
        """Return where a point of the leaf is in the image; both coordinates are in -1 to 1."""
        along, across = np.asarray(along), np.asarray(across)
        x = across * width / 2 * _outline(along) + bend * length * (1 - along**2)
        y = -along * length / 2
        turned = (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle))
        return list(zip(turned[0] + centre[0], turned[1] + centre[1], strict=True))

    t = np.linspace(-1, 1, 60)
    edge = 1 + 0.03 * np.sin(t * rng.uniform(30, 50))
    blade = place(np.concatenate([t, t[::-1]]), np.concatenate([edge, -edge[::-1]]))
    green = np.array([72, 132, 58]) + rng.normal(0, (14, 14, 8)) + rng.normal(0, 10)
    shadow = Image.new("L", image.size)
    ImageDraw.Draw(shadow).polygon([(x + 9, y + 11) for x, y in blade], fill=110)
    image.paste(_colour(bench * 0.45), mask=shadow.filter(ImageFilter.GaussianBlur(8)))
    inside = Image.new("L", image.size)
    ImageDraw.Draw(inside).polygon(blade, fill=255)
    leaf = Image.new("RGB", image.size, _colour(green))
    draw = ImageDraw.Draw(leaf)
    vein = _colour(green * 1.25 + 22)
    for start in np.linspace(-0.8, 0.75, 9):
        for side in (-1, 1):
            draw.line(place([start, start + 0.24], [0, side * 0.95]), vein, width=2)
    draw.line(place(t, 0 * t), vein, width=5)
    spots = Image.new("RGBA", image.size)
    _DISEASES[kind](ImageDraw.Draw(spots), place, rng)
    leaf.paste(spots, mask=spots.filter(ImageFilter.GaussianBlur(1.5)))
    image.paste(leaf, mask=inside)
    ImageDraw.Draw(image).line(place([-1.16, -0.95], [0, 0]), _colour(green * 0.9), width=7)
    return _photograph(image, rng, noise=5)


def _outline(along):
    """Return the half width of a leaf: broad below the middle, and with a tip."""
    return np.sqrt(np.clip(1 - along**2, 0, None)) * (1 - 0.35 * along)


def _healthy(draw, place, rng):
    for _ in range(rng.integers(0, 3)):  # a speck is no disease
        _spot(draw, place, rng, rng.uniform(2, 4), (96, 110, 52, 200))


def _rust(draw, place, rng):
    for _ in range(rng.integers(9, 28)):
        radius = rng.uniform(3, 8)
        _spot(draw, place, rng, radius, (186, 96, 28, 255), halo=(196, 178, 60, 150))


def _mildew(draw, place, rng):
    for _ in range(rng.integers(4, 10)):
        along, across = rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8)
        for _ in range(14):  # one patch
            near = place([along + rng.normal(0, 0.06)], [across + rng.normal(0, 0.14)])[0]
            _disc(draw, near, rng.uniform(4, 11), (228, 232, 224, 150))


def _blight(draw, place, rng):
    start = rng.uniform(0.1, 0.65)
    t = np.linspace(-1, 1, 30)
    front = start + 0.05 * np.cumsum(rng.normal(0, 0.5, 30))
    for shift, colour in ((-0.07, (150, 140, 52, 190)), (0, (112, 72, 38, 255))):
        border = place(np.clip(front + shift, -1, 1), t)
        draw.polygon([*border, *place(np.linspace(0.98, 0.98, 2), [1.2, -1.2])], fill=colour)


_DISEASES = {"healthy": _healthy, "rust": _rust, "mildew": _mildew, "blight": _blight}


def _spot(draw, place, rng, radius, colour, halo=None):
    where = place([rng.uniform(-0.85, 0.85)], [rng.uniform(-0.85, 0.85)])[0]
    if halo is not None:
        _disc(draw, where, radius * 1.9, halo)
    _disc(draw, where, radius, colour)


def _plate(kind, rng):
    # rolling leaves streaks: noise that is the same over many pixels of a row
    rows = rng.normal(0, 9, (_LARGE, 1)) + rng.normal(0, 5, (_LARGE, _LARGE // 24)).repeat(24, 1)
    x, y = np.meshgrid(np.linspace(-1, 1, _LARGE), np.linspace(-1, 1, _LARGE))
    light = 26 * (x * rng.normal() + y * rng.normal()) / 2
    steel = 150 + rng.normal(0, 10) + light + rows
    tint = np.array([0.97, 1.0, 1.04])
    image = Image.fromarray((steel[..., None] * tint).clip(0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(1))
    draw = ImageDraw.Draw(image, "RGBA")
    if kind == "scratch":
        start, angle = rng.uniform(0.2, 0.8, 2) * _LARGE, rng.uniform(0, np.pi)
        step = rng.uniform(0.2, 0.45) * _LARGE * np.array([np.cos(angle), np.sin(angle)])
        bend = rng.normal(0, 8, 2)
        line = [tuple(start - step), tuple(start + bend), tuple(start + step)]
        draw.line([(x + 2, y + 3) for x, y in line], (60, 62, 68, 130), width=4, joint="curve")
        draw.line(line, (236, 240, 246, 220), width=3, joint="curve")
    elif kind == "pits":
        middle = rng.uniform(0.25, 0.75, 2) * _LARGE
        for _ in range(rng.integers(5, 14)):
            where, radius = middle + rng.normal(0, 34, 2), rng.uniform(2.5, 6.5)
            _disc(draw, where + 1.5, radius + 1.5, (216, 220, 226, 120))
            _disc(draw, where, radius, (58, 52, 50, 220))
    elif kind == "crack":
        where, angle = rng.uniform(0.2, 0.8, 2) * _LARGE, rng.uniform(0, 2 * np.pi)
        for width in np.linspace(5, 1, rng.integers(14, 24)).round().astype(int):
            angle += rng.normal(0, 0.45)
            end = where + 11 * np.array([np.cos(angle), np.sin(angle)])
            draw.line([tuple(where), tuple(end)], (36, 32, 34, 235), width=int(width))
            where = end
    return _photograph(image, rng, noise=4)


def _cells(n, markers, rng):
    image = Image.new("RGB", (_LARGE, _LARGE), _colour(rng.normal((8, 10, 22), 2)))
    bodies = Image.new("RGB", image.size)
    nuclei = Image.new("RGB", image.size)
    draw, inside = ImageDraw.Draw(bodies), ImageDraw.Draw(nuclei)
    shines = np.array([markers[1] * 0.9, markers[0] * 0.8, 0.12])
    dividing = (
        set(rng.choice(n, min(n, rng.integers(2, 5)), replace=False)) if markers[2] else set()
    )
    for number, where in enumerate(_apart(n, rng)):
        angle, radius = rng.uniform(0, np.pi), rng.uniform(19, 27)
        brightness = rng.uniform(90, 170) * (rng.random() < 0.75)  # some cells do not express it
        _ellipse(draw, where, radius * 1.15, radius, angle, _colour(shines * brightness + 14))
        blue = np.array([70, 110, 235]) * rng.uniform(0.75, 1.05)
        if number in dividing:  # two condensed nuclei, which are brighter
            step = 11 * np.array([np.cos(angle), np.sin(angle)])
            for nucleus in (where - step, where + step):
                _ellipse(inside, nucleus, 4.5, 9, angle, _colour(blue + 130))
        else:
            _ellipse(inside, where, radius * 0.5, radius * 0.45, angle, _colour(blue))
    lights = [
        np.asarray(layer.filter(ImageFilter.GaussianBlur(blur)), dtype=float)
        for layer, blur in ((image, 0), (bodies, 4), (nuclei, 2))
    ]
    return _photograph(Image.fromarray(sum(lights).clip(0, 255).astype(np.uint8)), rng, noise=6)


def _apart(n, rng):
    """Return `n` places, no two of them on the same spot."""
    places = []
    while len(places) < n:
        where = rng.uniform(0.06, 0.94, 2) * _LARGE
        if all(np.hypot(*(where - other)) > 40 for other in places):
            places.append(where)
    return places


def _disc(draw, where, radius, colour):
    x, y = where
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _ellipse(draw, where, a, b, angle, colour):
    t = np.linspace(0, 2 * np.pi, 24)
    x, y = a * np.cos(t), b * np.sin(t)
    turned = (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle))
    draw.polygon(list(zip(turned[0] + where[0], turned[1] + where[1], strict=True)), fill=colour)


def _colour(values):
    return tuple(int(value) for value in np.clip(values, 0, 255))


def _photograph(image, rng, noise):
    """Scale down, and add what a camera adds: another exposure, and noise."""
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=float)
    pixels = pixels * rng.uniform(0.88, 1.1) + rng.normal(0, noise, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)
