"""The pipeline file, the flags and the constructor: what they accept, and the one line that refuses the rest."""

import os
import re
from pathlib import Path

import msgspec
import pytest

from streamcore.core.config import Config, Market, Stream, Subcontract, make_config
from streamcore.core.errors import UsageError


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
        ("read", 3, "read must be a text, not 3"),
        ("quiet", "yes", "quiet must be true or false, not 'yes'"),
        ("listen", "0.0.0.0:5555", "listen must be tcp://HOST:PORT, not '0.0.0.0:5555'"),
        ("listen", "tcp://127.0.0.1:65536", "listen must be tcp://HOST:PORT, not 'tcp://127.0.0.1:65536'"),
        ("listen", "tcp://127.0.0.1", "listen must be tcp://HOST:PORT, not 'tcp://127.0.0.1'"),
        ("metrics", "127.0.0.1:99999", "metrics must be HOST:PORT, not '127.0.0.1:99999'"),
        ("metrics", "127.0.0.1:*", "metrics must be HOST:PORT, not '127.0.0.1:*'"),
        ("metrics", ":9100", "metrics must be HOST:PORT, not ':9100'"),
        ("metrics", "tcp://127.0.0.1:9100", "metrics must be HOST:PORT, not 'tcp://127.0.0.1:9100'"),
        ("listen", "tcp://127.0.0.1:1", "make keys with 'streamcore keys NAME DIRECTORY'"),
        ("workers", 0, "nobody could do the work"),
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


@pytest.mark.parametrize(("kind", "part"), [(Config, 0), (Stream, 1), (Market, 2), (Subcontract, 3)])
def test_every_key_stands_in_the_manual(kind, part):
    manual = (Path(__file__).parents[3] / "docs" / "pipeline-file.md").read_text()
    manual = re.split(r"\n\| key", manual)[part + 1]
    rows = {line.split("|")[1].strip(" `"): line for line in manual.splitlines() if line.startswith("| `")}
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    assert rows.keys() == fields.keys()
    for key, row in rows.items():
        default = fields[key].default
        if default not in (msgspec.NODEFAULT, "", None) and default != []:
            told = row.split("|")[2].strip(" `").replace(",", "")
            assert told == str(default).lower() if isinstance(default, bool) else told == str(default), row


def test_a_snap_length_of_0_is_all_as_in_tcpdump():
    assert Config(interface="eth0", write="-", snap_length=0) == Config(interface="eth0", write="-")
