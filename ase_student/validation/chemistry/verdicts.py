"""Verdicts on what a potential is good for, from its figures and fixed limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ase_student.validation.chemistry import (
    conformers,
    crystals,
    interactions,
    torsions,
    vibrations,
    water,
)

GOOD, FAIR, POOR, UNKNOWN = "good", "usable with care", "not good enough", "not tested"


@dataclass(frozen=True)
class Topic:
    """A use of potentials, and the limits by which a potential is judged for it.

    Attributes
    ----------
    name : str
    figure, against : str
        Name of the figure whose absolute value is judged, and what it is compared with.
    good, fair : float
        Limits, in the figure's unit; above `fair` a potential is not good enough.
    unit : str
    """

    name: str
    figure: str
    against: str
    good: float
    fair: float
    unit: str


#: The limits. 1 kcal/mol is known as chemical accuracy; 0.3 kcal/mol is half of RT at room
#: temperature.
TOPICS = (
    Topic("binding at contact", interactions.AT_MINIMUM, "teacher", 0.5, 1.0, "kcal/mol"),
    Topic(
        "attraction at a distance of 3.5 to 4.5 Å", interactions.PULLED_APART, "teacher",
        0.15, 0.3, "kcal/mol",
    ),
    Topic("rotational barriers", torsions.BARRIERS, "teacher", 0.5, 1.0, "kcal/mol"),
    Topic("energies of conformers", conformers.RELATIVE, "teacher", 0.3, 0.6, "kcal/mol"),
    Topic("vibrations", vibrations.FREQUENCIES, "teacher", 20.0, 40.0, "cm⁻¹"),
    Topic("molecular crystals", crystals.LENGTHS, "experiment", 2.0, 4.0, "%"),
    Topic("pressure of liquid water", water.PRESSURE, "teacher", 0.5, 2.0, "kbar"),
    Topic("structure of liquid water", water.PEAK, "experiment", 0.3, 0.8, ""),
    Topic("density of liquid water", water.DENSITY_NAME, "experiment", 2.0, 5.0, "%"),
)  # fmt: skip


def verdicts(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return topic, grade, value and a sentence for each topic, JSON types only.

    Parameters
    ----------
    figures : sequence of dict
        As :func:`ase_student.validation.chemistry.run.figures` returns them.
    """
    by_key = {(figure["name"], figure["against"]): figure for figure in figures}
    lost = next((figure for figure in figures if figure["name"] == crystals.LOST), None)
    judged = []
    for topic in TOPICS:
        figure = by_key.get((topic.figure, topic.against))
        grade, sentence = _judged(topic, figure)
        note = ""
        if topic.name == "molecular crystals" and lost is not None and lost["value"]:
            grade, note = POOR, f"{lost['value']:.0f} {lost['unit']} lost"
            sentence += f" {lost['value']:.0f} {lost['unit']} crystals are lost ({lost['detail']})."
        judged.append(
            {
                "topic": topic.name,
                "grade": grade,
                "value": None if figure is None else figure["value"],
                "unit": topic.unit,
                "note": note,
                "sentence": sentence.strip(),
            }
        )
    return judged


def _judged(topic: Topic, figure: dict[str, Any] | None) -> tuple[str, str]:
    if figure is None:
        return UNKNOWN, ""
    if figure["value"] is None:
        return (POOR, f"{figure['detail']}.") if figure["detail"] else (UNKNOWN, "")
    value = abs(figure["value"])
    grade = GOOD if value <= topic.good else FAIR if value <= topic.fair else POOR
    against = "the teacher" if topic.against == "teacher" else topic.against
    limits = f"good up to {topic.good:g}, usable up to {topic.fair:g}"
    unit = f" {topic.unit}" if topic.unit else ""
    return grade, f"{figure['value']:.2g}{unit} off {against} ({limits})."


def words(judged: Sequence[dict[str, Any]]) -> str:
    """Return verdicts as a few sentences: what a potential is good for and what not, with values.

    Examples
    --------
    >>> words([{"topic": "vibrations", "grade": "good", "value": 12.3, "unit": "cm⁻¹"},
    ...        {"topic": "rotational barriers", "grade": "not good enough", "value": 1.2,
    ...         "unit": "kcal/mol"}])
    'Good for vibrations (12 cm⁻¹). Not good enough for rotational barriers (1.2 kcal/mol).'
    """
    phrases = {GOOD: "Good for", FAIR: "Usable with care for", POOR: "Not good enough for"}
    sentences = []
    for grade, phrase in phrases.items():
        topics = [
            f"{verdict['topic']}{_in_brackets(verdict)}"
            for verdict in judged
            if verdict["grade"] == grade
        ]
        if topics:
            sentences.append(f"{phrase} {_joined(topics)}.")
    untested = [verdict["topic"] for verdict in judged if verdict["grade"] == UNKNOWN]
    if untested:
        sentences.append(f"Not tested: {', '.join(untested)}.")
    return " ".join(sentences)


def _in_brackets(verdict: dict[str, Any]) -> str:
    value = (
        "" if verdict["value"] is None else f"{abs(verdict['value']):.2g} {verdict['unit']}".strip()
    )
    texts = [text for text in (value, verdict.get("note")) if text]
    return f" ({', '.join(texts)})" if texts else ""


def _joined(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
