"""The stubs for Go are current, and the example in Go works against a real server."""

import ast
import os
import re
import signal
import subprocess
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from statekeep import AsyncClient
from tests.support.cli_server import CliServer, cli_server
from tests.support.making import built_with_go, make
from tests.support.project import ROOT, TOOLS, must_pass

PROTOS = sorted(path.stem for path in (ROOT / "protos/statekeep/v1").glob("*.proto"))
STUBS = ROOT / "client/go/statekeep/v1"
AGENT_SOURCE = ROOT / "examples/go-agent/main.go"
SAVED = re.compile(
    r"run=(?P<run>\S+) step=(?P<step>\d+) outcome=SAVE_OUTCOME_(?P<outcome>\w+) "
    r"version=(?P<version>\d+) trace=(?P<trace>[0-9a-f]{32})"
)


def agents(program: Path, server: CliServer, *arguments: str) -> list[dict[str, str]]:
    """Run the Go agents to their end and return their saves."""
    done = subprocess.run(
        [program, "-target", server.target, "-pause", "1ms", *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = [SAVED.fullmatch(line) for line in done.stdout.splitlines()]
    return [match.groupdict() for match in found if match is not None]


@pytest.mark.timeout(900)  # the first build of the plugins, in CI
def test_the_stubs_for_go_are_current() -> None:
    built_with_go("protoc-gen-go")
    must_pass(TOOLS / "python", "tools/generate_go.py", "--check")


@pytest.mark.parametrize("name", PROTOS)
def test_the_stubs_for_go_hold_this_contract(name: str) -> None:
    """Needs no Go: the generated code holds the description that it was generated from."""
    ours = FileDescriptorProto()
    import_module(f"statekeep.v1.{name}_pb2").DESCRIPTOR.CopyToProto(ours)
    theirs = described((STUBS / f"{name}.pb.go").read_text())
    for message in theirs.message_type:
        forget_json_names(message)
    assert theirs == ours, "run `make generate-go`"


def described(source: str) -> FileDescriptorProto:
    """The description in generated Go code: one string, in a literal a line."""
    block, _, _ = source[source.index('_rawDesc = ""') :].partition("\n\n")
    raw = b""
    for literal in re.findall(r'^\t(".*")(?: \+)?$', block, re.MULTILINE):
        # As Python writes bytes: Go's literals are UTF-8.
        said = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), literal)
        escaped = (f"\\x{byte:02x}" if byte > 127 else chr(byte) for byte in said.encode())
        raw += ast.literal_eval("b" + "".join(escaped))
    return FileDescriptorProto.FromString(raw)


def forget_json_names(message: DescriptorProto) -> None:
    """Python's generated code leaves them out."""
    for field in message.field:
        field.ClearField("json_name")
    for inner in message.nested_type:
        forget_json_names(inner)


def test_without_go_one_line_says_so(tmp_path: Path) -> None:
    missing = f"GO_PLUGINS={tmp_path}/protoc-gen-go"
    done = make("generate-go", missing, PATH=str(tmp_path))
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert said == ["make generate-go needs Go 1.24 or newer, to build protoc-gen-go"]
    assert done.returncode != 0


def test_the_example_stays_an_example() -> None:
    assert len(AGENT_SOURCE.read_text().splitlines()) < 150


@pytest.mark.timeout(900)  # the first build of the agent, in CI
async def test_go_agents_keep_their_state_and_go_on_from_it(tmp_path: Path) -> None:
    program = built_with_go("go-agent")
    url = f"sqlite+aiosqlite:///{tmp_path}/statekeep.db"
    async with (
        cli_server(tmp_path, database_url=url, ENABLE_OPTIMIZED_PERSISTENCE="true") as server,
        AsyncClient(server.target, token="") as client,
    ):
        saves = agents(program, server, "-agents", "3", "-steps", "4")
        saves += agents(program, server, "-agents", "3", "-steps", "2")

        steps = {(save["run"], int(save["step"])) for save in saves}
        assert steps == {(f"go-agent-{run}", step) for run in (1, 2, 3) for step in range(1, 6)}
        # Every second step finds nothing, and only then nothing is written. A skipped step is not
        # in the state that was loaded, so that it is taken again.
        assert Counter(save["outcome"] for save in saves) == {"PERSISTED": 9, "SKIPPED": 9}
        newest = await client.load("go-agent-2")
        assert newest.version == 3
        assert newest.state == {"findings": ["step 1", "step 3", "step 5"], "heartbeat_count": 5}


@pytest.mark.timeout(900)
async def test_go_agents_live_through_a_restart_of_the_server(tmp_path: Path) -> None:
    program = built_with_go("go-agent")
    url = f"sqlite+aiosqlite:///{tmp_path}/statekeep.db"
    async with cli_server(tmp_path, database_url=url) as server:
        port = server.port_file.read_text()
        process = subprocess.Popen(
            [program, "-target", server.target, "-pause", "1ms", "-agents", "2", "-steps", "40"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            await server.end(signal.SIGKILL)
            async with (
                cli_server(tmp_path, "--port", port, database_url=url) as second,
                AsyncClient(second.target, token="") as client,
            ):
                out, err = process.communicate(timeout=60)
                assert process.returncode == 0, err
                saves = [SAVED.fullmatch(line) for line in (first + out).splitlines()]
                newest = await client.load("go-agent-1")
                versions = [
                    int(save["version"]) for save in saves if save and save["run"] == "go-agent-1"
                ]
                # Each save happened once, also the one whose answer the crash took away.
                assert versions == list(range(1, 41))
                assert newest.version == 40
        finally:
            process.kill()
            process.wait()
