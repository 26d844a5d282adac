"""Slower cases are found in spite of other work on the machine."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from timing import cases as cases_module
from timing import check, measurement
from timing.baseline import Verdict, read_baseline, table, write_baseline
from timing.cases import CASES, Case
from timing.check import (
    FOLDER,
    LIMIT,
    REPEATS,
    SECOND_LOOKS,
    Race,
    baseline_file,
    compare,
)
from timing.clock import undisturbed_clock
from timing.commands import main
from timing.machine import cpu_flags
from timing.measurement import YARDSTICKS, measure


class Machine:
    """A clock that advances with the work; disturbances make calls longer."""

    def __init__(self, speed=1.0, disturbance=lambda: 1.0):
        self.now, self.speed, self.disturbance = 0.0, speed, disturbance

    def clock(self):
        return self.now

    def work(self, seconds):
        def run(calls):
            self.now += calls * seconds * self.disturbance() / self.speed

        return run


@pytest.fixture
def race(monkeypatch):
    """Return a function that makes a race of two cases on a machine; one may be slower."""

    def make(machine, slowdown=1.0):
        monkeypatch.setitem(YARDSTICKS, "ruler", lambda: machine.work(0.001))
        cases = [
            Case("short", "ruler", lambda: machine.work(0.0005 * slowdown)),
            Case("long", "ruler", lambda: machine.work(0.1)),
        ]
        return Race(cases, machine.clock)

    return make


USUAL = {"short": 0.5, "long": 100.0}


def noise(seed):
    """Return a function of random factors: three of five samples are up to eight times longer."""
    rng = np.random.default_rng(seed)
    return lambda: 1.0 + 7.0 * rng.random() * (rng.random() < 0.6)


@pytest.mark.parametrize("speed", [0.2, 1.0, 5.0])
def test_an_unchanged_case_passes_on_any_machine(race, speed):
    verdicts = compare(race(Machine(speed)), USUAL)
    assert [verdict.slowdown for verdict in verdicts] == pytest.approx([1.0, 1.0])
    assert not any(verdict.is_too_slow for verdict in verdicts)


@pytest.mark.parametrize("speed", [0.2, 1.0, 5.0])
def test_a_case_that_takes_twice_as_long_is_found(race, speed):
    verdicts = compare(race(Machine(speed), slowdown=2.0), USUAL)
    assert {verdict.name: verdict.is_too_slow for verdict in verdicts} == {
        "short": True,
        "long": False,
    }
    assert verdicts[0].slowdown == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(20))
def test_noise_gives_no_wrong_verdicts(race, seed):
    assert not any(
        verdict.is_too_slow for verdict in compare(race(Machine(1.0, noise(seed))), USUAL)
    )
    slow = compare(race(Machine(1.0, noise(seed)), slowdown=2.0), USUAL)
    assert [verdict.name for verdict in slow if verdict.is_too_slow] == ["short"]


def test_only_cases_that_seem_too_slow_are_measured_again(race):
    runs = race(Machine(), slowdown=2.0)
    compare(runs, USUAL)
    assert len(runs.samples["long"].case) == REPEATS
    assert len(runs.samples["short"].case) == REPEATS * (1 + SECOND_LOOKS)


def test_a_short_disturbance_is_no_slowdown(race):
    # One sample of the case was disturbed; the sample of its yardstick was not.
    runs = race(Machine())
    runs.samples["short"].case.append(0.005)
    runs.samples["short"].yardstick.append(0.001)
    assert not any(verdict.is_too_slow for verdict in compare(runs, USUAL))


def test_case_and_yardstick_are_sampled_in_turns_for_equal_times():
    log = []
    machine = Machine()

    def logged(name, seconds):
        work = machine.work(seconds)

        def run(calls):
            log.append((name, calls * seconds))
            work(calls)

        return run

    samples = measure(logged("case", 0.1), logged("ruler", 0.001), machine.clock, 3)
    assert [name for name, _ in log[-6:]] == ["ruler", "case"] * 3
    assert all(seconds == pytest.approx(0.1) for _, seconds in log[-6:])
    assert samples.ratio == pytest.approx(100.0)


@pytest.mark.skipif(
    "ASE_STUDENT_TIMING" not in os.environ,
    reason="set ASE_STUDENT_TIMING on a quiet machine: it depends on real time",
)
def test_only_a_real_slowdown_is_found(monkeypatch):
    """The work of the yardstick: four times as in the baseline, and eight times."""
    monkeypatch.setattr(measurement, "SAMPLE_SECONDS", 0.005)
    multiply = YARDSTICKS["matrix multiplication"]

    def prepared(factor):
        work = multiply()
        return lambda calls: work(factor * calls)

    cases = [
        Case("unchanged", "matrix multiplication", lambda: prepared(4)),
        Case("slower", "matrix multiplication", lambda: prepared(8)),
    ]
    verdicts = compare(Race(cases, undisturbed_clock()), {"unchanged": 4.0, "slower": 4.0})
    assert [verdict.is_too_slow for verdict in verdicts] == [False, True], table(verdicts)


def test_the_clock_counts_sleep():
    clock = undisturbed_clock()
    start, wall = clock(), time.perf_counter()
    time.sleep(0.02)
    elapsed, wall_elapsed = clock() - start, time.perf_counter() - wall
    assert 0.01 < elapsed <= wall_elapsed + 1e-3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_run(case):
    assert case.yardstick in YARDSTICKS
    work = case.prepare()
    work(1)


@pytest.fixture
def quick(monkeypatch):
    """Replace the cases of the command by two short ones; return their times."""
    machine = Machine()
    seconds = {"short": 0.0005, "long": 0.1}

    def prepare(name):
        return lambda: lambda calls: machine.work(seconds[name])(calls)

    monkeypatch.setitem(YARDSTICKS, "ruler", lambda: machine.work(0.001))
    monkeypatch.setattr(check, "CASES", [Case(name, "ruler", prepare(name)) for name in seconds])
    monkeypatch.setattr(check, "undisturbed_clock", lambda: machine.clock)
    return seconds


def test_the_command_compares_with_a_baseline(quick, tmp_path, capsys):
    path = tmp_path / "baseline.json"
    command = ["check", "--baseline", str(path)]
    assert main(command) == 2
    assert "--update" in capsys.readouterr().err
    assert main([*command, "--update"]) == 0
    assert main(command) == 0
    assert "no case became 1.5 times slower" in capsys.readouterr().out
    quick["long"] *= 2.0
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "long" in error
    assert "2.00x  too slow" in error
    assert main([*command, "--limit", "2.5"]) == 0
    assert main([*command, "--limit", "1"]) == 2


def test_the_limit_is_larger_on_a_processor_of_another_name(quick, tmp_path, monkeypatch, capsys):
    command = ["check", "--baseline", str(tmp_path / "baseline.json")]
    assert main([*command, "--update"]) == 0
    monkeypatch.setattr(check, "hardware", lambda: {"cpu": "another"})
    quick["long"] *= 2.0
    assert main(command) == 0
    assert "no case became 3 times slower" in capsys.readouterr().out
    quick["long"] *= 2.0
    assert main(command) == 1


def test_another_processor_is_not_judged(quick, tmp_path, monkeypatch, capsys):
    command = ["check", "--baseline", str(tmp_path / "baseline.json")]
    assert main([*command, "--update"]) == 0
    quick["long"] *= 2.0
    monkeypatch.setattr(check, "cpu_flags", lambda: ("avx512f",))
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "2.00x" in output
    assert "not judged: this processor has avx512f" in output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a baseline"),
        ("[]", "is not a baseline"),
        ('{"cases": {"a": {}}}', "is not a baseline"),
        ('{"cases": {"a": {"ratio": 0}}}', "must be positive"),
        ('{"cases": {"a": {"ratio": NaN}}}', "must be positive"),
        ('{"cases": {}}', "lacks case 'a'"),
        ('{"cases": {"a": {"ratio": 1}, "b": {"ratio": 1}}}', "has an unknown case 'b'"),
    ],
)
def test_files_that_are_no_baselines_are_refused(tmp_path, content, message):
    path = tmp_path / "baseline.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_baseline(path, ["a"])


def test_baselines_are_read_as_written(tmp_path):
    path = tmp_path / "baseline.json"
    write_baseline(path, {"a": 2.0, "b": 0.5}, {"a": "ruler", "b": "ruler"}, [0.1, 0.2])
    baseline = read_baseline(path, ["a", "b"])
    assert baseline.ratios == {"a": 2.0, "b": 0.5}
    assert baseline.cpu_flags == cpu_flags()
    assert json.loads(path.read_text())["hardware"]["cores"] >= 1


def test_the_committed_baselines_have_these_cases(request):
    files = sorted((request.config.rootpath / FOLDER).glob("baseline*.json"))
    assert FOLDER / "baseline-avx2.json" in [path.relative_to(path.parents[1]) for path in files]
    for path in files:
        baseline = read_baseline(path, [case.name for case in CASES])
        assert len(baseline.ratios) == len(CASES)
        # A processor with these instructions reads this file.
        assert baseline_file(baseline.cpu_flags).name == path.name


def test_the_baseline_depends_on_the_instructions_of_the_processor():
    names = [baseline_file(flags).name for flags in (["avx2", "avx512f"], ["avx2"], ["asimd"], [])]
    assert names == [f"baseline-{name}.json" for name in ("avx512", "avx2", "neon", "other")]


def test_some_cases_can_be_updated_alone(quick, tmp_path, capsys):
    path = tmp_path / "baseline.json"
    command = ["check", "--baseline", str(path)]
    assert main([*command, "--update", "--only", "long"]) == 2
    assert "there is no" in capsys.readouterr().err
    assert main([*command, "--update"]) == 0
    quick["short"] *= 2.0
    quick["long"] *= 2.0
    assert main([*command, "--update", "--only", "long"]) == 0
    assert read_baseline(path, list(quick)).ratios == {"short": 0.5, "long": 200.0}
    cases = json.loads(path.read_text())["cases"]
    assert "cpu" not in cases["short"]
    assert cases["long"]["cpu"]
    assert main([*command, "--update", "--only", "longer"]) == 2
    assert main([*command, "--only", "long"]) == 2
    assert "no case has 'longer'" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.0, -0.1])
def test_times_that_are_not_positive_are_not_written(quick, tmp_path, capsys, seconds):
    path = tmp_path / "baseline.json"
    quick["long"] = seconds
    assert main(["check", "--update", "--baseline", str(path)]) == 2
    assert "the machine is too busy to time 'long'" in capsys.readouterr().err
    assert not path.exists()


def test_the_baseline_of_another_processor_needs_a_name(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "cpu_flags", lambda: ("asimd",))
    assert main(["check"]) == 0
    missing = Path("benchmarks", "baseline-neon.json")
    assert f"not judged: there is no '{missing}'" in capsys.readouterr().out
    monkeypatch.setenv("ASE_STUDENT_ENGINE_ISA", "x86-64-v3")
    assert main(["check", "--update"]) == 2
    assert "ASE_STUDENT_ENGINE_ISA is set" in capsys.readouterr().err
    assert main(["check", "--update", "--baseline", "mine.json"]) == 0


def test_the_slowest_case_is_first_in_the_table():
    verdicts = [Verdict("a", "ruler", 1.0, 1.0, LIMIT), Verdict("b", "ruler", 1.0, 3.0, LIMIT)]
    lines = table(verdicts).splitlines()
    assert [line.split()[0] for line in lines] == ["case", "b", "a"]
    assert "too slow" in lines[1]
    assert "too slow" not in lines[2]


def test_atoms_move_between_calls(monkeypatch):
    """A case with cached results would be below any limit."""
    evaluated_positions = []
    monkeypatch.setattr(
        cases_module.StudentCalculator,
        "calculate",
        lambda self, atoms, *_: evaluated_positions.append(atoms.positions.copy()),
    )
    work = next(case for case in CASES if case.name.startswith("1,000 atoms")).prepare()
    work(3)
    assert len({positions.tobytes() for positions in evaluated_positions}) == 3
