"""What test_real_programs.py does in seconds, for longer: outside the suite, by `make soak`."""

import pytest

from tests.streamcore.whole.test_real_programs import converse_under_faults


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("nothing_left")
def test_200_megabytes_under_faults(bump, tmp_path):
    sip, dns, told = converse_under_faults(bump, tmp_path, 200, 300, 10, 8_000_000)
    print(f"{sip.voice} voice packets, {dns.asked_again} questions asked again, {told['workers']}, {told['packets']}")
