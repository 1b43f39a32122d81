"""Pictures that are not drawn, for tests that are about something else.

Drawing them is more than half the time of a small run.
"""

import base64

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'


def savefig(figure, target, *, format, **options):
    """In place of matplotlib's Figure.savefig: a picture of one pixel, or an empty diagram."""
    content = SVG if format == "svg" else PNG
    if hasattr(target, "write"):
        target.write(content)
    else:
        target.write_bytes(content)
