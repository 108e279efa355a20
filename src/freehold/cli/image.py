"""`freehold image`: the images that deployments are made of."""

from pathlib import Path

import msgspec
from cyclopts import App

from freehold.base.errors import InvalidInputError
from freehold.cli.output import Json, Result, Table
from freehold.client.home import Home
from freehold.client.images import LocalImages

app = App(name="image", help="Import images and list them; they go to nodes when you deploy.")


@app.command(name="import")
def import_(path: Path, /, *, name: str | None = None, reference: str | None = None, json: Json = False) -> Result:
    """Import an image: an OCI layout folder, an OCI archive, or the file that `docker save` writes.

    Every digest is checked. Nothing is sent anywhere until you deploy.

    Parameters
    ----------
    path
        The folder or file.
    name
        The name under which compose files find it, such as guestbook-web:1; the file's name when left out.
    reference
        Which image, when the archive holds several.
    """
    if not path.exists():
        raise InvalidInputError(f"no such file: {path}", code="file_missing", hint="check the path")
    image = LocalImages(Home.default()).add(path, name, reference)
    text = f"{image.name}  {image.digest}  {image.size_bytes / 1e6:.1f} MB"
    return Result(msgspec.to_builtins(image), text)


@app.command(name="list")
def list_(*, json: Json = False) -> Result:
    """List imported images."""
    images = LocalImages(Home.default()).list()
    table = Table(("NAME", "DIGEST", "SIZE", "IMPORTED"))
    for image in images:
        table.add(image.name, image.digest[:19], f"{image.size_bytes / 1e6:.1f} MB", image.imported)
    return Result({"images": msgspec.to_builtins(images)}, table.text())
