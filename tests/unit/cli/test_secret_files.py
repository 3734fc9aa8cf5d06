"""A secret may stand in a file that the variable with _FILE names."""

from pathlib import Path

import pytest

from statekeep_server.cli.connection import Connection
from statekeep_server.cli.errors import CommandFailed
from statekeep_server.cli.settings import SettingsError, read_database_url, read_options

URL = "postgresql://me:hunter2@db/states"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "url").write_text(f"{URL}\n")
    (tmp_path / "token").write_text("s3cret\n")
    return {
        "STATEKEEP_DATABASE_URL_FILE": str(tmp_path / "url"),
        "STATEKEEP_TOKEN_FILE": str(tmp_path / "token"),
    }


def test_secrets_are_read_from_files(files: dict[str, str]) -> None:
    read = read_options({}, files)
    assert (read.settings.database_url, read.settings.token) == (URL, "s3cret")
    assert read.unknown_variables == ()
    assert read_database_url(None, files) == URL


def test_a_variable_wins_over_its_file(files: dict[str, str]) -> None:
    read = read_options({}, {**files, "STATEKEEP_TOKEN": "other"})
    assert read.settings.token == "other"
    assert read_options({"token": "mine"}, files).settings.token == "mine"


def test_only_secrets_have_files(files: dict[str, str]) -> None:
    read = read_options({}, {**files, "STATEKEEP_HOST_FILE": files["STATEKEEP_TOKEN_FILE"]})
    assert read.settings.host == "127.0.0.1"
    assert read.unknown_variables[0].startswith("STATEKEEP_HOST_FILE")


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"\n", "is empty"), (b"\xff", "is no text")]
)
def test_a_file_that_holds_no_secret_is_a_problem(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    for name in ("STATEKEEP_TOKEN", "STATEKEEP_DATABASE_URL"):
        with pytest.raises(SettingsError, match=rf"{name}: .*{said}") as caught:
            read_options({}, {f"{name}_FILE": str(path)})
        assert len(caught.value.problems) == 1


async def test_commands_read_the_token_from_its_file(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATEKEEP_TOKEN", raising=False)
    monkeypatch.setenv("STATEKEEP_TOKEN_FILE", files["STATEKEEP_TOKEN_FILE"])
    assert Connection().told_token() == "s3cret"
    assert Connection(token="mine").told_token() == "mine"
    monkeypatch.setenv("STATEKEEP_TOKEN_FILE", "/nowhere/token")
    with pytest.raises(CommandFailed, match="No such file"):
        Connection().client()
