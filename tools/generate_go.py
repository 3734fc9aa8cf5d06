"""Generate the Go stubs from protos/ into client/go/statekeep/v1.

`--check` generates into a temporary folder instead and fails when the committed code differs.
`make generate-go` runs it with the interpreter of the tools environment, whose protoc is the one
that makes the Python stubs, and builds the two plugins that tools/protoc-go pins.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PLUGINS = ROOT / "build" / "tools"
PACKAGE = Path("statekeep") / "v1"
CLIENT = ROOT / "client" / "go"
MODULE = "statekeep.dev/client/go"
"""As in client/go/go.mod. It is given here and not in the protos, which belong to no language."""


def generate(out: Path) -> None:
    """Write the stubs of every proto file below `out`."""
    from grpc_tools import protoc  # only in the tools environment

    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    package = f"{MODULE}/{PACKAGE.as_posix()};statekeepv1"
    options = [f"module={MODULE}", *(f"M{source}={package}" for source in sources)]
    code = protoc.main(
        [
            "protoc",
            *(f"--plugin={PLUGINS / name}" for name in ("protoc-gen-go", "protoc-gen-go-grpc")),
            f"-I{PROTOS}",
            f"-I{files('grpc_tools') / '_proto'}",
            *(f"--{name}_out={out}" for name in ("go", "go-grpc")),
            *(f"--{name}_opt={option}" for name in ("go", "go-grpc") for option in options),
            *sources,
        ]
    )
    if code:
        sys.exit(code)


def tree(folder: Path) -> dict[str, bytes]:
    """Read the generated files of a folder by their names."""
    return {path.name: path.read_bytes() for path in folder.glob("*.go")}


def main() -> None:
    """Generate, or compare with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    check: bool = parser.parse_args().check
    committed_folder = CLIENT / PACKAGE
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = tree(Path(folder) / PACKAGE)
    committed = tree(committed_folder)
    differing = sorted(
        name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name)
    )
    if check:
        if differing:
            sys.exit(f"Go code is not current: {', '.join(differing)}; run `make generate-go`")
        print(f"Go code is current: {len(fresh)} files")
        return
    committed_folder.mkdir(parents=True, exist_ok=True)
    for name in committed.keys() - fresh.keys():
        (committed_folder / name).unlink()
    for name, content in fresh.items():
        (committed_folder / name).write_bytes(content)
    print(f"generated {len(fresh)} files, {len(differing)} changed")


if __name__ == "__main__":
    main()
