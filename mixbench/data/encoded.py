"""Images that are known by their encoded bytes, as in a tar file or a table of Hugging Face's."""

from __future__ import annotations

from abc import abstractmethod

from PIL import Image

from mixbench.data.images import image_of, size_of
from mixbench.data.sources import Source


class EncodedSource(Source):
    """A source whose image `index` is `encoded(index)`, which errors call `described(index)`."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The bytes of an image file; UnreadableImage where they cannot be had."""

    @abstractmethod
    def described(self, index: int) -> str:
        """Which image that is, for a sentence."""

    def load(self, index: int) -> Image.Image:
        return image_of(self.encoded(index), self.described(index))

    def size(self, index: int) -> tuple[int, int]:
        return size_of(self.encoded(index), self.described(index))

    def content(self, index: int) -> bytes:
        content = self.encoded(index)
        image_of(content, self.described(index))
        return content
