"""Profiles: samples by subsystem, and the flame graph."""

from xml.etree import ElementTree as ET

from benchmarks.profiling import LOOP, read_profile, render_profile, render_threads

ROOT = "MainThread;main (statekeep_server/cli/serve.py:1);run (asyncio/runners.py:9)"
LINES = [
    f"{ROOT} 40",
    f"{ROOT};save (statekeep_server/service/facade.py:3);dumps (statekeep_server/domain/x.py:4) 30",
    f"{ROOT};write (statekeep_server/storage/s.py:3);execute (sqlalchemy/engine/base.py:4) 20",
    f"{ROOT};write (statekeep_server/storage/s.py:5);<listcomp> (<string>:1) 10",
    "not a sample",
]


def test_a_sample_belongs_to_its_innermost_known_frame() -> None:
    profile = read_profile(LINES)
    assert profile.samples == 100
    assert profile.by_subsystem == {
        LOOP: 40,
        "our domain (canonical form, differ, audit)": 30,
        "SQLAlchemy": 20,
        "our storage": 10,
    }


def test_lines_of_one_function_count_together() -> None:
    profile = read_profile(LINES)
    assert profile.inclusive["write (statekeep_server/storage/s.py)"] == 30


def test_a_profile_is_rendered_by_share() -> None:
    text = render_profile(read_profile(LINES), title="Saves")
    assert "| SQLAlchemy | 20.0 % |" in text
    assert "&lt;listcomp>" in text


def test_threads_are_rendered_by_cost_of_a_call() -> None:
    text = render_threads({"main": 1.0}, {"main": 1.5, "network": 0.1, "idle": 0.0}, 1_000)
    assert "| main | 500 |" in text
    assert text.index("main") < text.index("network")
    assert "idle" not in text


def test_a_flame_graph_is_a_picture_of_all_calls() -> None:
    picture = read_profile(LINES).flame_graph(title="a & b")
    root = ET.fromstring(picture)
    titles = [each.text or "" for each in root.iter() if each.tag.endswith("title")]
    assert any("execute (sqlalchemy/engine/base.py): 20.0 %" in title for title in titles)
    assert not any("MainThread" in title for title in titles)
