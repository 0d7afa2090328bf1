"""Where a label goes so that it covers neither the picture's border nor another label. Knows no matplotlib."""

from __future__ import annotations

from dataclasses import dataclass

ATTEMPTS = 12


@dataclass(frozen=True)
class Plate:
    """A label's rectangle in pixels of the picture."""

    left: float
    top: float
    width: float
    height: float

    def overlaps(self, other: Plate) -> bool:
        """Whether the two share any area."""
        apart = self.left >= other.left + other.width or other.left >= self.left + self.width
        return not (apart or self.top >= other.top + other.height or other.top >= self.top + self.height)


def place_label(
    corner: tuple[float, float], size: tuple[float, float], picture: tuple[int, int], taken: list[Plate]
) -> Plate:
    """A plate of `size` on top of a box's left upper `corner`, inside `picture` (width, height), beside those `taken`.

    It takes the free place nearest to the corner, inside the box first; where all is full it stays on the corner.
    """
    width, height = size
    left = min(max(corner[0], 0.0), max(picture[0] - width, 0.0))
    first = min(max(corner[1] - height, 0.0), max(picture[1] - height, 0.0))
    for step in sorted(range(-ATTEMPTS, ATTEMPTS + 1), key=lambda step: (abs(step), -step)):
        plate = Plate(left, first + step * height, width, height)
        inside = plate.top >= 0 and plate.top + height <= picture[1]
        if inside and not any(plate.overlaps(other) for other in taken):
            return plate
    return Plate(left, first, width, height)
