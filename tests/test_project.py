"""Project files (metadata, workflows, pages) agree with the code and with each other."""

import configparser
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = sorted(
    page for pattern in ("*.md", "[!.]*/*.md", ".github/**/*.md") for page in ROOT.glob(pattern)
)
WIDTH = 100
#: Pages that hold the repository's address.
ADDRESSED = ("README.md", "CITATION.cff", ".github/ISSUE_TEMPLATE/config.yml")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def declared() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def ci() -> dict:
    return yaml.safe_load(text_of(".github/workflows/ci.yml"))


def run_lines(workflow: dict) -> list[str]:
    """Return every command of a workflow, one line each."""
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", [])]
    return [line for step in steps for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_markdown_is_wrapped(page) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    text = re.sub(r"(<!-- .*?begin).*?(<!-- .*?end -->)", "", text, flags=re.DOTALL)
    # Links, tables and figures stand on one line each.
    prose = [
        line for line in text.splitlines() if not line.lstrip().startswith(("|", "!", "[", "<"))
    ]
    assert [line for line in prose if len(line) > WIDTH] == []


def test_citation_has_the_version_license_and_address(declared) -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    metadata = declared["metadata"]
    assert str(citation["version"]) == metadata["version"]
    assert citation["license"] == metadata["license"]
    assert citation["repository-code"] == metadata["url"]
    assert metadata["license"] in text_of("LICENSE").splitlines()[0]


@pytest.mark.parametrize("name", ADDRESSED)
def test_the_repository_has_one_address_everywhere(declared, name) -> None:
    address = declared["metadata"]["url"]
    addresses = re.findall(r"https://github\.com/[\w-]+/[\w-]+", text_of(name))
    assert addresses
    assert set(addresses) == {address}


def test_project_urls_belong_to_the_repository(declared) -> None:
    address = declared["metadata"]["url"]
    lines = declared["metadata"]["project_urls"].strip().splitlines()
    assert all(line.partition(" = ")[2].startswith(address) for line in lines)


def test_declared_python_versions_are_tested(declared, ci) -> None:
    tested = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    oldest = declared["options"]["python_requires"].removeprefix(">=")
    classified = re.findall(r"Python :: (3\.\d+)", declared["metadata"]["classifiers"])
    assert tested[0] == oldest
    assert set(classified) <= set(tested)
    assert f"Python-{oldest}_or_newer" in text_of("README.md")
    assert (
        f"py{oldest.replace('.', '')}"
        == tomllib.loads(text_of("pyproject.toml"))["tool"]["ruff"]["target-version"]
    )


def test_three_systems_and_both_ends_of_dependencies_are_tested(ci) -> None:
    systems = {name.partition("-")[0] for name in ci["jobs"]["test"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    ends = {
        row["resolution"] for row in ci["jobs"]["dependencies"]["strategy"]["matrix"]["include"]
    }
    assert ends == {"lowest-direct", "highest"}


def test_wheels_are_built_for_four_platforms() -> None:
    wheels = yaml.safe_load(text_of(".github/workflows/wheels.yml"))
    built = wheels["jobs"]["wheel"]["strategy"]["matrix"]["os"]
    assert [name for name in built if name.endswith("-arm")]
    assert {name.partition("-")[0] for name in built} == {"ubuntu", "macos", "windows"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_use_existing_targets_extras_and_files(declared, path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
    extras = set(declared["options.extras_require"])
    for line in run_lines(workflow):
        assert set(re.findall(r"^make ([\w-]+)", line)) <= targets
        for names in re.findall(r'"\.\[([\w,]+)\]"', line):
            assert set(names.split(",")) <= extras
        for file in re.findall(r"(?:tests/\S+\.py|[\w-]+\.txt)", line):
            assert (ROOT / file).is_file(), file
    for job in workflow["jobs"].values():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
        else:
            assert job["timeout-minutes"] <= 90


def test_only_the_release_workflow_can_publish() -> None:
    """Trusted publishing: only one job may request an identity, in an approved environment."""
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        assert "secrets." not in path.read_text(encoding="utf-8")
        for name, job in workflow["jobs"].items():
            if "permissions" in job:
                assert (path.name, name) == ("release.yml", "publish")
                assert job["permissions"] == {"id-token": "write"}
                assert job["environment"] == "release"
                assert job["needs"] == "wheels"


def test_students_of_the_issue_form_are_the_bundled_ones() -> None:
    from ase_student.checkpoint import available_students

    form = yaml.safe_load(text_of(".github/ISSUE_TEMPLATE/physics.yml"))
    options = next(item for item in form["body"] if item.get("id") == "student")
    assert set(options["attributes"]["options"][:-1]) == set(available_students())


def test_the_conda_environment_uses_the_constraints(declared) -> None:
    environment = yaml.safe_load(text_of("environment.yml"))
    (pip,) = [
        dependency["pip"]
        for dependency in environment["dependencies"]
        if isinstance(dependency, dict)
    ]
    assert pip[0] == "--constraint constraints.txt"
    extras = re.fullmatch(r"--editable \.\[([\w,]+)\]", pip[1])
    assert set(extras[1].split(",")) <= set(declared["options.extras_require"])
    python = next(
        dependency
        for dependency in environment["dependencies"]
        if str(dependency).startswith("python=")
    )
    assert python.removeprefix("python=") in declared["metadata"]["classifiers"]


def test_logo_is_a_picture() -> None:
    root = ElementTree.fromstring(text_of("docs/logo.svg"))
    assert root.tag.endswith("}svg")
    assert root.get("viewBox")


def test_description_of_the_package_has_only_absolute_links(declared, tmp_path) -> None:
    pytest.importorskip("setuptools")
    code = (
        "import sys; from setuptools.build_meta import prepare_metadata_for_build_wheel; "
        "prepare_metadata_for_build_wheel(sys.argv[1])"
    )
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_text(text_of(name), encoding="utf-8")
    (tmp_path / "ase_student").mkdir()
    (tmp_path / "ase_student" / "__init__.py").touch()
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    (metadata_file,) = tmp_path.glob("*.dist-info/METADATA")
    description = metadata_file.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", description)
    assert len(targets) > 10
    assert [
        target for target in targets if "://" not in target and not target.startswith("#")
    ] == []
    version = declared["metadata"]["version"]
    assert f"/raw/v{version}/docs/cost.png" in description
    assert f"/blob/v{version}/docs/performance.md" in description
