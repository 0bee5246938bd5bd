#!/usr/bin/env python3
"""Checks which foreign crates' types the public API of ws-routing shows against the list in foreign-types.txt.

    .ci/foreign-types.py            fails where the two differ
    .ci/foreign-types.py --write    takes what is found as the list

A breaking release of a crate on the list is a breaking change of ours, so the list is short and looked at. Needs the
nightly toolchain, whose rustdoc can write JSON.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / ".ci/foreign-types.txt"
OURS = {"ws_routing", "std", "core", "alloc"}
HEADER = "# The foreign types in the public API of ws-routing. Held by foreign-types.py.\n"


def main():
    found = HEADER + "".join(f"{path}\n" for path in sorted(set(foreign_types(rustdoc()))))
    if "--write" in sys.argv:
        LIST.write_text(found)
        return
    listed = LIST.read_text()
    if found != listed:
        new, gone = (sorted(set(a.splitlines()) - set(b.splitlines())) for a, b in ((found, listed), (listed, found)))
        sys.exit("".join([f"not on the list: {path}\n" for path in new] + [f"no longer used: {path}\n" for path in gone]))


def rustdoc():
    """The public API with the features that docs.rs shows."""
    metadata = json.loads(cargo("metadata --format-version 1 --no-deps"))
    package = next(package for package in metadata["packages"] if package["name"] == "ws-routing")
    features = ",".join(package["metadata"]["docs"]["rs"]["features"])
    cargo(f"+nightly rustdoc -q -p ws-routing --lib --features {features} -- -Z unstable-options --output-format json")
    return json.loads((pathlib.Path(metadata["target_directory"]) / "doc/ws_routing.json").read_text())


def cargo(arguments):
    return subprocess.run(["cargo", *arguments.split()], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def foreign_types(docs):
    for item in docs["index"].values():
        if item["crate_id"] != 0 or "impl" in item["inner"] and is_given(item["inner"]["impl"]):
            continue
        for id in paths_in(item["inner"]):
            path = docs["paths"].get(str(id), {}).get("path")
            if path and path[0] not in OURS:
                yield "::".join(path)


def is_given(impl):
    """Whether the compiler made the impl: such impls are no promise of ours."""
    return impl["is_synthetic"] or impl["blanket_impl"] is not None


def paths_in(node):
    """The ids of all types and traits that are named in a part of an item."""
    if isinstance(node, list):
        for child in node:
            yield from paths_in(child)
    elif isinstance(node, dict):
        if "id" in node and "path" in node:
            yield node["id"]
        for child in node.values():
            yield from paths_in(child)


if __name__ == "__main__":
    main()
