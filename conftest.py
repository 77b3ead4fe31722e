"""What nbval 0.11 leaves open for the notebooks, closed. Used by every pytest run from this folder.

1. A trailing `;` hides a cell's value, as in Jupyter.
2. A code cell that was never run fails: a notebook stripped of its outputs would pass and check nothing.
3. Outputs are compared in order, with their types and formats. Pictures too: their sizes, then both shrunk to 48x48, so that
   antialiasing drops out, and with it a changed letter or pale lines made a little paler.
4. The tag `nbval-approx` accepts decimals within 2 % of the stored ones; integers and words stay exact.
5. A kernel sees neither the user's IPython start-up files nor another plotting backend, and shows no progress bars.

The patched names are nbval's own, so pyproject.toml pins nbval==0.11.0.
"""

import base64
import copy
import io
import os
import re
import tempfile

import numpy as np
from nbval import kernel, plugin
from PIL import Image

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PICTURES = ("image/png", "image/jpeg")
SIZE_LIMIT = 0.05
MEAN_LIMIT, WORST_LIMIT = 3, 24  # of 255, at 48x48
APPROX = 0.02
DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:[eE][-+]?\d+)?(?![\w.])")

nbval_start = kernel.start_new_kernel
nbval_run = plugin.IPyNbCell.runtest
nbval_compare = plugin.IPyNbCell.compare_outputs
ipython_folder = tempfile.TemporaryDirectory(prefix="ipython-")


def start_new_kernel(*args, **kwargs):
    env = {**os.environ, "TQDM_DISABLE": "1", "IPYTHONDIR": ipython_folder.name}
    env.pop("MPLBACKEND", None)
    return nbval_start(*args, env=env, **kwargs)


def execute_cell_input(self, source, allow_stdin=None):
    """IPython honours the trailing `;` only for a cell that enters its history; nbval keeps cells out of it."""
    return self.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


def runtest(self):
    if self.cell.source.strip() and self.cell.execution_count is None and not self.options["skip"]:
        self.raise_cell_error("the stored notebook was not executed here: run `make notebooks` and commit its outputs")
    nbval_run(self)


def compare_outputs(self, new, stored, skip_compare=None):
    if "nbval-approx" in self.cell.metadata.get("tags", []):
        new = accept_close_decimals(new, stored)
    same = nbval_compare(self, new, stored, skip_compare)
    complaints = kind_complaints(kinds(new), kinds(stored)) or picture_complaints(pictures(new), pictures(stored))
    self.comparison_traceback += complaints
    return same and not complaints


def kinds(outputs):
    """What each output is, in order: its type, its stream, its formats, but for a widget's: that is never stored."""
    found = []
    for output in outputs:
        formats = sorted({*output.get("data", {})} - {WIDGET_VIEW})
        if formats or "data" not in output:
            found.append(" ".join([output["output_type"], *filter(None, [output.get("name")]), *formats]))
    return found


def kind_complaints(new, stored):
    return [] if new == stored else [f"stored outputs, in order: {stored}; new ones: {new}"]


def texts(outputs):
    """(kind, text, the dictionary that holds it, its key there) for every text output, in order."""
    for output in outputs:
        if "text" in output:
            yield output.get("name"), output["text"], output, "text"
        elif "text/plain" in output.get("data", {}):
            yield "text/plain", output["data"]["text/plain"], output["data"], "text/plain"


def accept_close_decimals(new, stored):
    """A copy of the new outputs in which every text that is close to the stored one is the stored one."""
    new = copy.deepcopy(new)
    for (kind, text, holder, key), (stored_kind, stored_text, _, _) in zip(texts(new), texts(stored)):
        if kind == stored_kind and close(text, stored_text):
            holder[key] = stored_text
    return new


def close(text, stored):
    if DECIMAL.sub("#", text) != DECIMAL.sub("#", stored):
        return False
    numbers, expected = ([float(number) for number in DECIMAL.findall(side)] for side in (text, stored))
    return bool(np.allclose(numbers, expected, rtol=APPROX, atol=1e-6))


def pictures(outputs):
    """Every picture as it is stored, in order."""
    return [data for output in outputs for kind, data in output.get("data", {}).items() if kind in PICTURES]


def picture_complaints(new, stored):
    complaints = []
    for number, (data, stored_data) in enumerate(zip(new, stored), start=1):
        if data.strip() == stored_data.strip():
            continue
        pair = [Image.open(io.BytesIO(base64.b64decode(side))).convert("RGB") for side in (data, stored_data)]
        if not np.allclose(*(picture.size for picture in pair), rtol=SIZE_LIMIT):
            complaints.append(f"picture {number} has {pair[0].size} pixels, the stored one {pair[1].size}")
        small = [np.asarray(picture.resize((48, 48), Image.Resampling.BOX), dtype=float) for picture in pair]
        gap = np.abs(small[0] - small[1])
        if gap.mean() > MEAN_LIMIT or gap.max() > WORST_LIMIT:
            complaints.append(
                f"picture {number} is not the stored one: mean difference {gap.mean():.1f} (limit {MEAN_LIMIT}), "
                f"worst {gap.max():.0f} (limit {WORST_LIMIT}) of 255 at 48x48"
            )
    return complaints


kernel.start_new_kernel = start_new_kernel
kernel.RunningKernel.execute_cell_input = execute_cell_input
plugin.IPyNbCell.runtest = runtest
plugin.IPyNbCell.compare_outputs = compare_outputs
