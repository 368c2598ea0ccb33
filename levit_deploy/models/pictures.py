"""Pictures of any size -> pictures of a model's size, as its preprocessing says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from levit_deploy.errors import DeployError
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.preprocessing import Preprocessing, Resize

# Of photos, of both orientations, and of one so tall that Pillow resizes it otherwise.
_PHOTO_SIZES = ((500, 375), (375, 500), (240, 640), (640, 427), (32, 32), (300, 225))
RGB, GREY = 3, 1  # channels
_MODES = {RGB: "RGB", GREY: "L"}  # as timm converts pictures for a model of so many


def as_pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """A picture of any kind as uint8 (height, width, channels), as Pillow's `convert` does it."""
    pixels: NDArray[np.uint8] = np.asarray(image.convert(_MODES[channels]))
    return pixels if channels == RGB else pixels[..., None]


def as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """(height, width, channels) as Pillow's picture, `RGB` or `L`."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == GREY else pixels)


def package_photos(count: int) -> tuple[NDArray[np.uint8], ...]:
    """The first `count` test images in the package, enlarged to the sizes of photos.

    uint8 RGB (height, width, 3). Their pixels become squares, whose edges no two filters resize
    alike.
    """
    images = demo_images(DemoSplit.TEST).images[:count]
    return tuple(
        np.asarray(as_image(image).resize(size, Image.Resampling.NEAREST))
        for image, size in zip(images, itertools.cycle(_PHOTO_SIZES), strict=False)
    )


def package_pictures(
    way: Preprocessing, image_size: int, count: int, channels: int
) -> NDArray[np.uint8]:
    """`package_photos` as a model sees them: uint8 (count, image_size, image_size, channels).

    Where `way` takes pictures of the model's size alone, they are squashed to it.
    """
    if way.resize is Resize.NONE:
        way = replace(way, side=1, crop=1, resize=Resize.SQUASH)
    photos = (as_pixels(as_image(photo), channels) for photo in package_photos(count))
    return np.stack([model_sized(photo, way, image_size) for photo in photos])


def model_sized(
    picture: NDArray[np.uint8], way: Preprocessing, image_size: int
) -> NDArray[np.uint8]:
    """Resize as `way` says and cut out the centre; picture: (height, width, channels).

    The other side is rounded down, as in torchvision's Resize and in transformers. Raises
    DeployError if pictures must have `image_size` already and this one has not.
    """
    height, width, _ = picture.shape
    side = way.resized_side(image_size)
    match way.resize:
        case Resize.NONE if (height, width) != (image_size, image_size):
            raise DeployError(
                f"a picture of `{width} x {height}` is not of the model's size, {image_size}",
                hint="leave out --preprocess none, or resize the pictures",
            )
        case Resize.NONE:
            return picture
        case Resize.SQUASH:
            size = (side, side)
        case Resize.SHORTER:
            shorter = min(height, width)
            size = (side * width // shorter, side * height // shorter)
    resample = Image.Resampling[way.resample.name]
    resized = np.asarray(as_image(picture).resize(size, resample)).reshape(*size[::-1], -1)
    left, top = (way.crop_start(length, image_size) for length in size)
    return np.ascontiguousarray(resized[top : top + image_size, left : left + image_size])
