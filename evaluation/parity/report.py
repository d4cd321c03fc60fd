"""The report of a comparison: one HTML page that needs nothing beside itself, and JSON and JUnit for machines."""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from showface.runtime.errors import ShowfaceError, system_errors
from showface.runtime.files import atomic_folder
from showface.runtime.untrusted.terminal import printable, printable_value

from .accumulate import ComparedPicture
from .plots import growth_plot, histogram_plot, picture_parts

TEMPLATE = "report.html.j2"
RESULTS_FILE, PAGE_FILE, JUNIT_FILE = "results.json", "index.html", "junit.xml"


def write_report(folder: Path, result: Mapping[str, Any], pictures: Sequence[ComparedPicture]) -> None:
    """Write ``index.html``, ``results.json`` and ``junit.xml`` into a folder that is missing or empty, all or nothing.

    Raises:
        ShowfaceError: a file cannot be written.
    """
    page, junit = render_page(result, pictures), junit_xml(result)
    folder = folder.resolve()
    with system_errors(ShowfaceError, folder, "cannot be written"), atomic_folder(folder) as temporary:
        (temporary / PAGE_FILE).write_text(page, encoding="utf-8")
        text = json.dumps(result, indent=2, allow_nan=False)
        (temporary / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")
        (temporary / JUNIT_FILE).write_bytes(junit)


def render_page(result: Mapping[str, Any], pictures: Sequence[ComparedPicture]) -> str:
    """Return the HTML page."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=printable_value
    )
    environment.filters.update(number=_number, png=png_address)
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    rows = []
    for picture in pictures:
        parts, gain = picture_parts(picture)
        rows.append({"name": picture.name, "parts": parts, "gain": gain})
    return template.render(
        result=result,
        views=[*result["stages"].items(), ("chain", result["chain"])],
        attribution=result.get("attribution", []),
        growth=growth_plot(result),
        histogram=histogram_plot(result),
        pictures=rows,
    )


def junit_xml(result: Mapping[str, Any]) -> bytes:
    """Return the verdicts as JUnit XML: a suite a view, a test case a tensor."""
    root = ET.Element("testsuites", name="showface validate")
    for view, figures in (*result["stages"].items(), ("chain", result["chain"])):
        suite = ET.SubElement(root, "testsuite", name=view)
        failures = list(figures["failures"])
        for name, tensor in figures["tensors"].items():
            case = ET.SubElement(suite, "testcase", classname=f"showface.{view}", name=name)
            mine = [text for text in failures if text.startswith(f"{name}: ")]
            failures = [text for text in failures if text not in mine]
            _fail(case, mine)
            lines = (
                printable(f"{key}={value}") for key, value in tensor.items() if isinstance(value, int | float | str)
            )
            ET.SubElement(case, "system-out").text = "\n".join(lines)
        if failures:
            _fail(ET.SubElement(suite, "testcase", classname=f"showface.{view}", name="image"), failures)
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _fail(case: ET.Element, failures: Sequence[str]) -> None:
    if failures:
        told = [printable(text) for text in failures]  # XML holds no control characters, not even as escapes
        ET.SubElement(case, "failure", message=told[0]).text = "\n".join(told)


def _number(value: float | int | None, digits: int | None = None) -> str:
    """Write a figure briefly; None is a value that is infinite or unknown."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if digits is None:
        return f"{value:.3g}"
    return f"{value:.2e}" if value and abs(value) < 10**-digits else f"{value:.{digits}f}"


def png_address(data: bytes) -> Markup:
    """Return the address of a picture that stands in the page itself."""
    return Markup("data:image/png;base64," + base64.b64encode(data).decode())
