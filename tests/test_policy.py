"""Texts of automatic augmentations: what timm reads, and what it would pass over."""

import pytest
from PIL import Image

from mixbench.data.transforms import train_transform
from mixbench.policy import check_policy
from mixbench.recipe import Recipe

RIGHT = [
    "rand",
    "rand-m9-mstd0.5-inc1",
    "rand-m9-n3-mstd0.5",
    "rand-mstd1-tweights",
    "rand-m15-mmax20",
    "rand-m0-p0.5-inc0",
    "rand-m9-t3a",
    "rand-m9-t3aw",
    "rand-mstd101",
    "augmix-m5-w4-d2",
    "augmix-m3-b1-a0.5-mstd0",
    "augmix",
    "original",
    "originalr-mstd0.5",
    "v0",
    "v0r",
    "3a",
]
WRONG = {
    "nonsense": "'nonsense' is none of rand, augmix",
    "": "'' is none of",
    "randm9": "'randm9' is none of",
    "rand-x9": "'x9' is none of m, n",
    "rand-": "'' is none of",
    "rand-m": "'m' is none of",  # timm passes over it
    "rand-m-5": "'m' is none of",
    "rand-m9.5": "m is a whole number from 0 to 20",
    "rand-m15": "timm cuts a magnitude above 10",
    "rand-m20-mmax15": "timm cuts a magnitude above 15",
    "rand-m99": "m is a whole number",
    "rand-n0": "n is a whole number from 1",
    "rand-p2": "p is a number from 0 to 1",
    "rand-inc2": "inc is a whole number from 0 to 1",
    "rand-mstd0.5.5": "mstd is a number",
    "rand-m9-m5": "m is given twice",
    "rand-tnonsense": "'tnonsense' is none of tweights",
    "rand-m9-mstd": "'mstd' is none of",
    "augmix-n3": "'n3' is none of m, w",
    "augmix-w0": "w is a whole number from 1",
    "original-m9": "'m9' is none of mstd",
    "rand-m\uff19": "'m\uff19' is none of",
    "RAND-m9": "'RAND' is none of",
    "rand m9": "'rand m9' is none of",
    "rand-" + "m" * 10**5: "is none of",
    "rand" + "-m9" * 10**5: "given twice",
}


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_is_drawn_by_timm(text):
    check_policy(text)
    transform = train_transform(Recipe(image_size=32, aa=text))
    for _ in range(40):
        assert transform(Image.new("RGB", (40, 40), (9, 99, 200))).shape == (3, 32, 32)


@pytest.mark.parametrize(("text", "reason"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_wrong_is_named(text, reason):
    with pytest.raises(ValueError, match=r"^aa .* is not a policy of timm ") as caught:
        check_policy(text)
    assert reason in str(caught.value) and len(str(caught.value)) < 300
