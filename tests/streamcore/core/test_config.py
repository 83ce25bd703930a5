"""The pipeline file, the flags and the constructor: what they accept, and the one line that refuses the rest."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from streamcore.command.flags import add_keys, keys_given
from streamcore.command.parser import Parser
from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.core.keys import Key, allowed, key_fields, one_of, plain
from streamcore.core.market_keys import Market, Subcontract
from streamcore.core.pipeline_file import make_config
from streamcore.core.rules import RUNS
from streamcore.core.run_keys import Stream
from streamcore.run.pipeline import Pipeline
from streamcore.service.protocol import ALLOWED

LISTENING = {"listen": "tcp://127.0.0.1:1", "key": "k", "worker_keys": "k"}


def test_flags_go_over_the_file(tmp_path):
    file = tmp_path / "pipeline.toml"
    file.write_text('policy = "run"\nsegment-packets = 7\nsegment_ms = 20\n[[service]]\nname = "slice"\nbytes = 64\n')
    config = make_config(str(file), {"policy": "time", "order": None})
    assert (config.policy, config.segment_packets, config.segment_ms) == ("time", 7, 20)
    assert config.service == [{"name": "slice", "bytes": 64}]
    assert config.order == "total"


def test_a_config_is_frozen_and_takes_paths():
    config = Config(read=Path("/in.pcap"), write=Path("/out.pcap"))
    assert (config.read, config.dead_letter_path) == ("/in.pcap", "/out.pcap.dead-letter.pcapng")
    with pytest.raises(AttributeError):
        config.read = "other"


def test_a_subcontract_may_name_every_effect():
    assert allowed(Subcontract, "effect") == one_of(ALLOWED)


def test_one_core_is_left_to_the_pipeline():
    assert Config().workers == max(1, len(os.sched_getaffinity(0)) - 1)


def test_policy_time_has_a_bound_of_its_own():
    assert Config(policy="time").segment_ms == 1000
    assert Config(policy="time", segment_ms=5).segment_ms == 5
    assert Config(policy="flow").segment_ms == 0


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("policy", "flwo", "policy must be flow, run or time, not 'flwo'"),
        ("on_failure", "keep", "on_failure must be drop or pass, not 'keep'"),
        ("segment_packets", 0, "segment_packets must be a whole number from 1 to 1048576, not 0"),
        ("segment_packets", "x", "segment_packets must be a whole number from 1 to 1048576, not 'x'"),
        ("segment_packets", 1.5, "segment_packets must be a whole number from 1 to 1048576, not 1.5"),
        ("chunk_wait_s", 61, "chunk_wait_s must be a number from 0 to 60, not 61"),
        ("hash_seed", -1, f"hash_seed must be a whole number from 0 to {2**63 - 1}, not -1"),
        ("hash_seed", 2**64, f"hash_seed must be a whole number from 0 to {2**63 - 1}, not {2**64}"),
        ("service", "count", "service must be a list of names or tables, not 'count'"),
        ("read", 3, "read must be a string or a list of strings, not 3"),
        ("quiet", "yes", "quiet must be true or false, not 'yes'"),
        ("listen", "0.0.0.0:5555", "listen must be tcp://HOST:PORT, not '0.0.0.0:5555'"),
        ("listen", "tcp://127.0.0.1:65536", "listen must be tcp://HOST:PORT, not 'tcp://127.0.0.1:65536'"),
        ("listen", "tcp://127.0.0.1", "listen must be tcp://HOST:PORT, not 'tcp://127.0.0.1'"),
        ("metrics", "127.0.0.1:99999", "metrics must be HOST:PORT, not '127.0.0.1:99999'"),
        ("metrics", "127.0.0.1:*", "metrics must be HOST:PORT, not '127.0.0.1:*'"),
        ("metrics", ":9100", "metrics must be HOST:PORT, not ':9100'"),
        ("metrics", "tcp://127.0.0.1:9100", "metrics must be HOST:PORT, not 'tcp://127.0.0.1:9100'"),
        ("listen", "tcp://127.0.0.1:1", "make keys with 'streamcore keys NAME DIRECTORY'"),
        ("workers", 0, "no worker could process the packets"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_its_key(key, value, words):
    with pytest.raises(UsageError) as by_constructor:
        Config(**{key: value})
    with pytest.raises(UsageError) as by_flags:
        make_config(None, {key: value})
    assert words in str(by_constructor.value)
    assert str(by_flags.value) == str(by_constructor.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("segmnt_packets = 3", "there is no key 'segmnt_packets' (did you mean segment_packets?)"),
        ("segment-packets = 3\nsegment_packets = 3", "segment_packets is given twice, with - and with _"),
        ("segment_packets = ", "this is not TOML: Invalid value (at"),
        ('policy = "none"', "policy must be flow, run or time, not 'none'"),
        ("[policy]\nname = 'run'", "policy must be flow, run or time, not {'name': 'run'}"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, words):
    file = tmp_path / "pipeline.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        make_config(str(file), {"policy": "run", "segment_packets": 5})  # flags do not hide it
    assert str(raised.value).startswith(f"{file}: ")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "pipeline.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="this is not TOML"):
        make_config(str(file))


def test_the_tables_of_the_manual_are_those_of_the_fields():
    script = Path(__file__).parents[3] / "scripts" / "write-keys"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_has_its_row_and_every_number_its_bounds():
    manual = (Path(__file__).parents[3] / "docs" / "pipeline-file.md").read_text()
    for kind in (Config, Stream, Market, Subcontract):
        for field in msgspec.structs.fields(kind):
            (row,) = re.findall(rf"^\| `{plain(field.name)}`.*$", of_kind(manual, kind), re.MULTILINE)
            if type(field.default) in (int, float) and field.default:
                assert f"| {field.default:g} |" in row or f"| {field.default} |" in row


def of_kind(manual, kind):
    """The part of the manual with the keys of a kind of table."""
    name = "run" if kind is Config else kind.__name__.lower()
    return manual.partition(f"<!-- keys of {name}:")[2].partition("<!-- end -->")[0]


class WithPatience(Config, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Config with one key more: this field is all that a new key needs, but what reads it."""

    patience_s: Annotated[int, Meta(ge=0, le=60), Key("wait N seconds", "-P", "N", "failures")] = 5


def test_a_new_key_is_one_field(tmp_path):
    parser = Parser(prog="streamcore run")
    add_keys(parser, "run", WithPatience)
    assert "-P, --patience-s N" in parser.format_help()
    assert "wait N seconds (default: 5)" in parser.format_help()
    file = tmp_path / "pipeline.toml"
    file.write_text("patience-s = 7\n")

    def made(*words):
        return make_config(str(file), keys_given(parser.parse_args(words), WithPatience), kind=WithPatience)

    assert made().patience_s == 7
    assert made("-P", "8").patience_s == 8
    assert WithPatience(patience_s=9).patience_s == 9
    assert WithPatience().patience_s == 5
    for wrong in (lambda: made("-P", "61"), lambda: WithPatience(patience_s=61)):
        with pytest.raises(UsageError, match=r"^patience_s must be a whole number from 0 to 60, not 61$"):
            wrong()
    with pytest.raises(UsageError, match="there is no key 'patience_s'"):
        make_config(str(file))
    with pytest.raises(UsageError, match="read and interface are both set"):
        WithPatience(read="a", interface="b")


@pytest.mark.parametrize(
    ("command", "key", "words"),
    [
        ("run", "flows_max = 300", "flows_max has no effect in 'streamcore run': it is a key of 'streamcore flows'"),
        ("packets", "flows_max = 300", "flows_max has no effect in 'streamcore packets'"),
        ("flows", "workers = 1", "workers has no effect in 'streamcore flows': it is a key of 'streamcore run'"),
    ],
)
def test_a_key_without_effect_is_refused(command, key, words, tmp_path):
    file = tmp_path / "pipeline.toml"
    file.write_text(f"{key}\n")
    with pytest.raises(UsageError) as raised:
        make_config(str(file), command=command)
    assert words in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_key_without_effect_in_the_run_is_refused(tmp_path):
    """Every key that is only for some runs, in a run that is not one of them; and in one that is."""
    file = tmp_path / "in.pcap"
    file.write_bytes(b"")
    capture = {"read": str(file), "write": "out.pcap"}
    live = {"interface": "eth0", "write": "out.pcap"}
    sent = {"read": "-", "output_interface": "eth1"}
    terms = [{"name": "a", "select": "udp", "subcontract": {"minimum_bps": 1, "price_max": 1}}]
    cases = [
        ("from_", "5", live, capture), ("until", "2026-11-27", live, capture), ("shift", "-1.5", live, capture),
        ("sort_s", 1.0, live, capture), ("inputs", "chain", capture, capture | {"read": ["a.pcap", "b.pcap"]}),
        ("loop", 2, live, capture), ("source_mac", "02:00:00:00:00:01", live, capture), ("vlan", 5, live, capture),
        ("target_mac", "02:00:00:00:00:01", live, capture), ("mtu", 1500, live, capture),
        ("over_mtu", "cut", capture, capture | {"mtu": 1500}),
        ("duration_s", 1.0, capture, live), ("promiscuous", False, capture, live),
        ("snap_length", 60, capture, live), ("snap_length", 262_144, sent, live), ("buffer_kib", 512, capture, live),
        ("rings", 2, sent, live), ("overload", "pass", sent, live), ("segments", "wire", capture, live),
        ("user", "nobody", capture, live),
        ("spool_bytes", 1 << 20, live, live | {"overload": "spool"}),
        ("spool_directory", "/tmp", live, live | {"overload": "spool"}),
        ("replay", 0.0, live, sent), ("replay", 2.0, capture, sent), ("rate_mbps", 3.0, capture, sent),
        ("rate_pps", 3.0, live, sent), ("chunk_wait_s", 1.0, capture, capture | {"read": "-"}),
        ("follow_fragments", True, capture, capture | {"filter": "udp"}),
        ("match", "inner", capture, capture | {"filter": "udp"}),
        ("flow_key", "inner", capture | {"policy": "run"}, capture),
        ("hash_seed", 7, capture | {"policy": "time"}, capture | {"policy": "time", "service": ["count"]}),
        ("restarts_max", 2, capture | LISTENING | {"workers": 0}, capture),
        ("after_file", "true", capture, capture | {"rotate_mb": 1}),
        ("split_files", 5, capture, capture | {"split": "host"}),
        ("rotate_aligned", False, capture | {"rotate_mb": 1}, capture | {"rotate_s": 60}),
        ("precision", "us", sent, capture), ("precision", "ns", capture | {"write": "out.pcapng.gz"}, live),
        ("key", "k", capture, capture | LISTENING), ("worker_keys", "k", capture, capture | LISTENING),
            ("audit", 0.5, capture, capture | LISTENING),
        ("market", {"url": "http://127.0.0.1:1"}, capture | LISTENING, capture | LISTENING | {"stream": terms}),
    ]  # fmt: skip
    for name, value, without, with_effect in cases:
        with pytest.raises(UsageError, match=rf"^{plain(name)} has no effect in this run: it is for [^\n]*$"):
            make_config(None, without | {name: value})
        make_config(None, with_effect | {name: value})
    named = {name for name, field in key_fields(Config).items() if field.key.only}
    assert named == {name for name, *_ in cases}
    assert {field.key.only for field in key_fields(Config).values() if field.key.only} == set(RUNS)


def test_a_pipeline_refuses_what_its_run_ignores():
    with pytest.raises(UsageError, match=r"snap_length has no effect in this run: .*; --service slice:N,from=packet"):
        Pipeline(Config(read="in.pcap", write="out.pcap", snap_length=60))


def test_half_a_run_may_be_completed(tmp_path):
    """A pipeline file for live interfaces, checked alone, and with the flags that make it one."""
    file = tmp_path / "pipeline.toml"
    file.write_text("snap_length = 60\nfollow_fragments = true\nrate_pps = 5\n")
    make_config(str(file))
    make_config(str(file), {"interface": "eth0", "output_interface": "eth1", "filter": "udp"})
    with pytest.raises(UsageError, match="rate_pps has no effect"):
        make_config(str(file), {"interface": "eth0", "write": "out.pcap", "filter": "udp"})


def test_a_compression_that_is_not_written_is_refused():
    for ending in (".bz2", ".xz", ".Z", ".zip"):
        for name in ("write", "dead_letter"):
            with pytest.raises(UsageError, match=f"{ending.lower()} is not a compression that streamcore writes"):
                make_config(None, {"read": "in.pcap", name: f"out.pcapng{ending}"})


def test_a_pipeline_refuses_a_key_that_it_does_not_use():
    with pytest.raises(UsageError, match="flows_max has no effect in 'streamcore run'"):
        Pipeline(Config(read="in.pcap", write="out.pcap", flows_max=300))


def test_a_snap_length_of_0_is_all_as_in_tcpdump():
    assert Config(interface="eth0", write="-", snap_length=0) == Config(interface="eth0", write="-")
