"""Execute notebooks and store them in one canonical form: python notebooks/execute.py [NOTEBOOK ...]

Without arguments, every notebook beside this file. Executed again on the same machine, a notebook changes no byte.
A notebook that fails stays as it was, the cell is named, and the exit code is 1.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

HERE = Path(__file__).resolve().parent
CELL_SECONDS = 600
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class ThisPython(AsyncKernelManager):
    """Runs kernels with the Python that runs this file, whatever kernels the user has registered."""

    @property
    def kernel_spec(self):
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


def read(path):
    """The notebook in format 4.5. A cell without an id gets one from its place; nbformat would draw one at random."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    for place, cell in enumerate(raw["cells"]):
        cell.setdefault("id", f"cell-{place:02d}")
    return nbformat.reads(json.dumps({**raw, "nbformat": 4, "nbformat_minor": 5}), as_version=4)


def execute(notebook, folder):
    """Run every code cell, in order, in a new kernel."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    place = []
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisPython,
        timeout=CELL_SECONDS,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=lambda cell, cell_index: place.append(cell_index),
    )
    with tempfile.TemporaryDirectory(prefix="ipython-") as ipython_folder:
        env = {**os.environ, "TQDM_DISABLE": "1", "IPYTHONDIR": ipython_folder}
        env.pop("MPLBACKEND", None)
        try:
            client.execute(
                env=env, stderr=subprocess.DEVNULL
            )  # the kernel's own log; what cells print goes into outputs
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            kinds = [cell.cell_type for cell in notebook.cells[: place[-1] + 1]]
            raise RuntimeError(f"code cell {kinds.count('code')}, cell {len(kinds)} of all\n{error}") from None


def canonical(notebook):
    """Drop what differs between two runs or two machines, and what only a live kernel could use."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def main(arguments):
    paths = [Path(argument) for argument in arguments] or sorted(HERE.glob("*.ipynb"))
    if not paths:
        sys.exit(f"no notebook in {HERE}")
    failed = False
    for path in paths:
        try:
            notebook = read(path)
            execute(notebook, path.resolve().parent)
        except (OSError, ValueError, nbformat.ValidationError, RuntimeError) as error:
            failed = True
            print(f"{path}: FAILED: {error}", file=sys.stderr)
            continue
        text = canonical(notebook)
        changed = text != path.read_text(encoding="utf-8")
        if changed:
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path}: {'stored' if changed else 'unchanged'}, {path.stat().st_size / 1024:.0f} KB")
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1:])
