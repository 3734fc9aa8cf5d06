"""Generate the Python stubs from protos/ into client/python/statekeep/v1.

`--check` generates into a temporary folder instead and fails when the committed code differs.
Run it with the interpreter of the tools environment (`make generate` does).
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
CLIENT = ROOT / "client" / "python"
PACKAGE = Path("statekeep") / "v1"


def generate(out: Path) -> None:
    """Write the stubs of every proto file below `out`."""
    from grpc_tools import protoc  # only in the tools environment

    plugins = Path(sys.executable).parent  # they stand beside this interpreter, not on the PATH
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    code = protoc.main(
        [
            "protoc",
            f"--plugin={plugins / 'protoc-gen-mypy'}",
            f"--plugin={plugins / 'protoc-gen-mypy_grpc'}",
            f"-I{PROTOS}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ]
    )
    if code:
        sys.exit(code)
    for path in out.rglob("*_pb2_grpc.py*"):
        service = path.name.removesuffix(path.suffix).removesuffix("_pb2_grpc")
        proto = (PROTOS / PACKAGE / f"{service}.proto").read_text(encoding="utf-8")
        if "\nservice " not in proto:
            path.unlink()  # protoc writes an empty one for a file without a service
    (out / PACKAGE / "__init__.py").write_text(
        '"""The generated code of the contract. Never edited: see tools/generate.py."""\n',
        encoding="utf-8",
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Read the generated files of a folder by their names."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".py", ".pyi"}
    }


def main() -> None:
    """Generate, or compare with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = tree(Path(folder) / PACKAGE)
    committed = tree(CLIENT / PACKAGE)
    differing = sorted(
        name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name)
    )
    if check:
        if differing:
            sys.exit(f"generated code is not current: {', '.join(differing)}; run `make generate`")
        print(f"generated code is current: {len(fresh)} files")
        return
    for name in committed.keys() - fresh.keys():
        (CLIENT / PACKAGE / name).unlink()
    for name, content in fresh.items():
        (CLIENT / PACKAGE / name).write_bytes(content)
    print(f"generated {len(fresh)} files, {len(differing)} changed")


if __name__ == "__main__":
    main()
