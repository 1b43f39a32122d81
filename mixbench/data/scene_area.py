"""How large the objects of drawn scenes are, as the name of their data set says it."""

from __future__ import annotations

from mixbench.values import shown

SCENES = "scenes"
Area = tuple[float, float]  # least and most of the image that an object's square takes
AREA: Area = (0.12, 0.5)


def is_scenes(name: str) -> bool:
    """Whether a data set's name is of drawn scenes, of whatever area."""
    return name == SCENES or name.startswith(f"{SCENES}:")


def parse_area(text: str) -> Area:
    """The area that `LOW,HIGH` says; ValueError where it is none."""
    try:
        low, high = map(float, text.split(","))
        fits = 0 < low <= high <= 1
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"a scene area must be LOW,HIGH with 0 < LOW <= HIGH <= 1, the share of the image that "
            f"an object's square takes, such as 0.02,0.06, not {shown(text)}"
        )
    return low, high


def area_of(name: str) -> Area:
    """The area of `scenes` or `scenes:LOW,HIGH`; ValueError where it is none."""
    return AREA if name == SCENES else parse_area(name.partition(":")[2])


def scenes_name(area: Area) -> str:
    """The name of the drawn scenes whose objects have that area."""
    return SCENES if area == AREA else f"{SCENES}:{area[0]},{area[1]}"
