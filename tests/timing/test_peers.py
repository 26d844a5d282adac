"""Models of peers with random parameters have the published shape."""

from timing.peers import ELEMENTS, nep_model


def test_a_nep_file_has_as_many_numbers_as_its_header_needs():
    lines = nep_model(ELEMENTS[:8]).splitlines()
    assert lines[0] == "nep4_zbl 8 H C N O F P S Cl"
    # (35 descriptors + 2) x 80 neurons x 8 elements + 1, 8 x 8 x 2 x 5 x 9, and 35 scales.
    assert len(lines) == 7 + 23681 + 5760 + 35
    assert all(float(line) for line in lines[7:])
