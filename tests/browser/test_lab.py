"""`edgeconnect-lite lab` opens a lesson that runs in a real browser."""

import nbformat

from conftest import ROOT

LESSON = "notebooks/00_start_here.ipynb"
RUN = """async place => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
    notebook.activeCellIndex = place;
    await app.commands.execute('notebook:run-cell');
    return notebook.widgets[place].model.sharedModel.toJSON();
}"""


def has_picture(cell):
    return any(kind.startswith("image/") for output in cell.get("outputs", []) for kind in output.get("data", {}))


def test_the_first_lesson_runs(browser, lab, page):
    stored = (ROOT / LESSON).read_bytes()
    cells = nbformat.reads(stored.decode(), as_version=4).cells
    places = [place for place, cell in enumerate(cells) if cell.cell_type == "code"]
    last = max(places[2], next(place for place in places if has_picture(cells[place])))

    lab.open(page, LESSON)
    page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    assert page.locator(".jp-OutputArea-output").count() == 0
    ran = [page.evaluate(RUN, place) for place in places if place <= last]

    assert [cell["execution_count"] for cell in ran] == list(range(1, len(ran) + 1))
    errors = [output for cell in ran for output in cell["outputs"] if output["output_type"] == "error"]
    assert not errors
    assert any(cell["outputs"] for cell in ran) and has_picture(ran[-1])
    picture = page.locator(".jp-OutputArea-output img").last
    picture.scroll_into_view_if_needed()
    assert picture.is_visible() and picture.evaluate("image => image.complete && image.naturalWidth") > 50
    assert (ROOT / LESSON).read_bytes() == stored, "the checkout's notebook was written over"


SLIDERS = "notebooks/01_photos_masks_edges.ipynb"


def test_a_slider_redraws_its_figure(browser, lab, page):
    cells = nbformat.read(ROOT / SLIDERS, as_version=4).cells
    sliders = next(place for place, cell in enumerate(cells) if "explore(" in cell.source)
    lab.open(page, SLIDERS)
    for place in range(sliders + 1):
        if cells[place].cell_type == "code":
            page.evaluate(RUN, place)
    picture = page.locator(".jp-OutputArea-output img.widget-image").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.naturalWidth > 50", arg=picture.element_handle())
    before = picture.get_attribute("src")
    handle = page.locator(".jp-OutputArea-output .noUi-handle").last  # the number of the mask
    handle.focus()
    handle.press("ArrowRight")
    page.wait_for_function("([image, before]) => image.src !== before", arg=[picture.element_handle(), before])
    page.wait_for_function("image => image.naturalWidth > 50", arg=picture.element_handle())
    assert page.locator("[role=alert]").count() == 0
