"""The reference of manifest.json, written from its types: `python -m lakefit.dataset.reference > docs/manifest.md`."""

from lakefit.config.reference import section_reference
from lakefit.dataset.manifest import Manifest

HEAD = """# The manifest

`<output.path>/<name>/datasets/<fingerprint>/manifest.json` says what a dataset is, where every row of it came from and
all that was learned of it. It is written last, inside the folder that appears in one rename: a dataset without a
manifest does not exist. Written from the types by `make docs`; `lakefit schema --of manifest` prints the JSON schema.
From Python: `lakefit.dataset.manifest.read_manifest(folder)`.

Numbers are finite: what does not apply is null.
"""


def reference() -> str:
    """Return the whole reference as Markdown."""
    return "".join((HEAD, *section_reference(Manifest, set())))


if __name__ == "__main__":
    print(reference(), end="")
