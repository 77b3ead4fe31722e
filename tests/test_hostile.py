"""Hostile input: each reader ends in its own exception, in little time and memory, and nothing that a user hands in can run.

The fixed corpus is the first cases of the fuzz campaign (benchmarks/fuzz.py) and the inputs that once went wrong.
"""

import ast
import base64
import json
import os
import pickle
import socket
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_python, save, shapes_photo
from PIL import Image
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from edgeconnect_lite import PhotoFolder, features
from edgeconnect_lite import weights as weights_module
from edgeconnect_lite.checkpoints import TrainingStopped, load_checkpoint
from edgeconnect_lite.editor.crop import similarity
from edgeconnect_lite.editor.serve import EYES, EditorServer, Handler
from edgeconnect_lite.editor.strokes import MAX_LENGTH, BadStroke, check_stroke
from edgeconnect_lite.editor.widget import STATE, EdgeEditor, EditorNotSaved
from edgeconnect_lite.generators import EdgeGenerator
from edgeconnect_lite.photos import BadPhoto, decode_photo, read_photo
from edgeconnect_lite.training import EdgeTraining
from edgeconnect_lite.weights import BadWeights, load_network, save_network, trained_size, weights_folder

ROOT = Path(__file__).parents[1]
FORMATS = ["png", "jpeg", "webp", "bmp", "gif", "tiff", "mask", "strokes", "config", "safetensors", "state", "eyes", "post",
           "list", "zip"]  # fmt: skip


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import fuzz

        yield fuzz


# the campaign's cases


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_the_first_cases_of_each_format_are_read_or_refused(fuzz, kind):
    valid, read, documented = fuzz.reader(kind)
    outcomes = [fuzz.outcome_of(read, documented, fuzz.case(kind, 0, k, valid)) for k in range(60)]
    assert {outcome for outcome, _ in outcomes} <= {"read", "refused"}, outcomes
    assert {said for outcome, said in outcomes if outcome == "refused"} and all(
        said.partition(": ")[2] for outcome, said in outcomes if outcome == "refused"
    )


def test_every_format_of_the_campaign_is_here(fuzz):
    assert list(fuzz.CASES) == FORMATS and sum(fuzz.CASES.values()) >= 100_000


def test_cases_depend_on_their_numbers_alone_and_differ(fuzz):
    valid = fuzz.seeds("png")
    cases = [fuzz.case("png", 0, k, valid) for k in range(100)]
    assert cases == [fuzz.case("png", 0, k, valid) for k in range(100)] and cases[: len(valid)] == valid
    assert len(set(cases)) > 80 and cases[50] != fuzz.case("png", 1, 50, valid)


def test_the_campaign_notices_what_goes_wrong(fuzz, tmp_path):
    result = fuzz.campaign("trial", 0, 7, tmp_path, seconds=1)
    assert {name: result[name] for name in ("cases", "read", "refused", "other exception", "crash", "hang")} == {
        "cases": 7, "read": 2, "refused": 1, "other exception": 2, "crash": 1, "hang": 1
    }  # fmt: skip
    assert [(each["case"], each["said"][:12]) for each in result["failures"]] == [
        (2, "KeyError: b'"), (3, "MemoryError:"), (4, "exit code -6"), (5, "exit code -2")
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trial-2", "trial-3", "trial-4", "trial-5"]
    assert "| trial | 7 | 2 | 1 | 2 | 1 | 1 |" in fuzz.report({"formats": {"trial": result}, "total": result})


# pictures


def png(width, height, *chunks):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = (struct.pack(">I4s", len(body), name) + body for name, body in parts)
    crcs = (struct.pack(">I", zlib.crc32(name + body)) for name, body in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(a + b for a, b in zip(packed, crcs))


BROKEN_PICTURES = {
    "a bomb: 20,000 x 20,000 px in 70 bytes": png(20_000, 20_000),
    "sides of 31 bits": png(2**31 - 1, 2**31 - 1),
    "no pixels": png(8, 8),
    "a profile without its method (an IndexError in the decoder)": png(8, 8, (b"iCCP", b"name\0")),
    "a text of 64 MB in 64 kB": png(8, 8, (b"zTXt", b"name\0\0" + zlib.compress(bytes(1 << 26)))),
    "a script": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", BROKEN_PICTURES)
def test_broken_pictures_are_refused_by_name(what):
    with pytest.raises(BadPhoto, match=r"x\.png: .+"):
        decode_photo(BROKEN_PICTURES[what], "x.png")


@pytest.mark.filterwarnings("ignore")
def test_a_few_bytes_that_claim_a_side_of_millions_are_refused(tmp_path):
    frames = [Image.fromarray(np.full((6, 8, 3), level, np.uint8)) for level in (0, 200)]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:])
    data = bytearray((tmp_path / "x.webp").read_bytes())
    assert data[12:16] == b"VP8X" and decode_photo(bytes(data), "x").shape == (6, 8, 3)
    data[27:30] = (6_553_607).to_bytes(3, "little")  # the canvas's height, less 1: 52 megapixels took seconds
    with pytest.raises(BadPhoto, match="too large"):
        decode_photo(bytes(data), "x")


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    data = save(tmp_path / "x.jpg", shapes_photo(64, 64), progressive=True).read_bytes()
    assert decode_photo(data, "x").shape == (64, 64, 3)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(BadPhoto, match=r"a JPEG of \d+ scans; wanted at most 100"):
        decode_photo(data[:last] + data[last:-2] * 1000 + data[-2:], "x")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no CUDA GPU, and no pipes on this system")
def test_a_folder_with_loops_links_and_pipes_ends(tmp_path):
    save(tmp_path / "a/1.png", shapes_photo(20, 20))
    (tmp_path / "a/b").symlink_to(tmp_path, target_is_directory=True)  # a loop of folders
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert len(list(PhotoFolder(tmp_path, 16))) == 1
    with pytest.raises(BadPhoto, match=r"pipe\.png: cannot be read"):
        read_photo(tmp_path / "pipe.png")  # would wait for ever
    names = ["pipe.png", "self.png", "folder.png", "a/1.png", "nul\0.png", "n" * 5000 + ".png", "/dev/zero"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert len(list(PhotoFolder(tmp_path / "list.txt", 16))) == 1


@pytest.mark.parametrize("data", [b"\xff\xfe\xff", b"a\0b.png\n", b"", b"n" * 5000 + b".png"])
def test_a_list_that_is_no_list(tmp_path, data):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(BadPhoto, match=r"x\.txt|can be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PhotoFolder(tmp_path / "x.txt")[0]


@pytest.mark.parametrize("name", ["n" * 5000, "n" * 5000 + ".zip", "a\0.txt", "x\0"])
def test_a_source_that_cannot_be_a_name(name):
    with pytest.raises(BadPhoto, match="there is no such folder"):
        PhotoFolder(name)


# weights


@pytest.fixture
def stored(tmp_path):
    """A folder of a small edge generator."""
    torch.manual_seed(0)
    save_network(EdgeGenerator(4, 8, 1, decision=2), tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", [
    '{"width": 100000000}', '{"width": -1}', '{"width": 1.5}', '{"width": "4"}', '{"width": true}', '{"width": null}',
    '{"width": [4]}', '{"width": {"x": 4}}', '{"width": NaN}', '{"blocks": 1000000000}', '{"decision": -1}', '{"skips": 1}',
    '{"skips": "no"}', '{"colour": 1}', '{"self": 1}', '{"__class__": 1}', "[]", "3", "null", '"width"', "", "{", "\x00",
    "[" * 60000, '{"width": ' + "9" * 6000 + "}", " " * 70000 + "{}",
])  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(stored, text):
    (stored / "config.json").write_text(text)
    with pytest.raises(BadWeights, match=r"config\.json: not a configuration of EdgeGenerator"):
        load_network(stored, EdgeGenerator)


def test_a_configuration_is_believed_only_where_the_file_holds_it(tmp_path):
    """Networks of 100 GB and more, claimed: none is made. In a process that may take 1 GB more than it holds."""
    code = f"""
import resource, sys
from pathlib import Path
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.weights import BadWeights, load_network, save_network
folder = Path({str(tmp_path)!r})
save_network(EdgeGenerator(4, 8, 1), folder)
load_network(folder, EdgeGenerator)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
if held: resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 30),) * 2)
for kind in (EdgeGenerator, ImageGenerator):
    for text in ('{{"width": 4096, "bottom": 4096, "blocks": 200}}', '{{"bottom": 4000}}', '{{}}'):
        (folder / "config.json").write_text(text)
        try:
            load_network(folder, kind)
        except BadWeights as error:
            assert "another architecture" in str(error), error
        else:
            raise SystemExit("read")
print("refused")
"""
    done = run_python(code, ROOT, path=os.pathsep.join([str(ROOT), str(ROOT / "kernels")]))
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.parametrize(
    "note", ["", "9", "10000", "1e3", "-64", "64.0", " 64", "64\n", "٦٤", "[" * 100_000, "9" * 100_000]
)
def test_a_note_that_is_no_size(stored, note):
    """It comes with weights from the Hub."""
    pair = stored / "pair"
    for stage in ("edge_generator", "image_generator"):
        save_network(EdgeGenerator(4, 8, 1), pair / stage, 64)
    assert trained_size(pair) == 64
    path = pair / "edge_generator/model.safetensors"
    path.write_bytes(safetensors_bytes(load_file(path), {"size": note}))
    with pytest.raises(
        BadWeights, match=r"model\.safetensors: says that it was trained at .* px; wanted 10 to 9999"
    ) as caught:
        trained_size(pair)
    assert len(str(caught.value)) < 1000
    for broken in (b"", b"noise" * 20):
        path.write_bytes(broken)
        with pytest.raises(BadWeights, match=r"model\.safetensors: not a safetensors file"):
            trained_size(pair)
    path.unlink()
    with pytest.raises(BadWeights, match=r"model\.safetensors: not a safetensors file"):
        trained_size(pair)


@pytest.mark.parametrize("lie", ["length", "shape", "offsets", "nothing", "dtype", "extra", "truncated"])
def test_a_safetensors_header_that_lies(stored, lie):
    path = stored / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    name = "unet.outlet.bias"
    if lie == "length":
        data = struct.pack("<Q", 2**62) + data[8:]
    elif lie == "truncated":
        data = data[:-100]
    elif lie == "nothing":
        data = b""
    elif lie in ("dtype", "extra"):
        state = load_file(path)
        state |= {name: state[name].to(torch.uint8)} if lie == "dtype" else {"x" * 1000: torch.zeros(1)}
        data = safetensors_bytes(state)
    else:
        header[name] |= {"shape": [2**40, 2**20]} if lie == "shape" else {"data_offsets": [0, 2**50]}
        packed = json.dumps(header).encode()
        data = struct.pack("<Q", len(packed)) + packed + data[8 + length :]
    path.write_bytes(data)
    with pytest.raises(BadWeights, match=r"model\.safetensors") as caught:
        load_network(stored, EdgeGenerator)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [
    "../weights", "..", "a/..", "../..", "./a", "~/a", "/etc/x", "a/b/c", "a\\b", "C:\\a/b", "a b/c", "a/b\0", "a/b\n", "",
    "n" * 5000 + "/x", "x/" + "n" * 5000, "é/a", "owner/name?x=1", "owner/name@main", "http://a/b", "a//b", "a/.b/../c",
])  # fmt: skip
def test_a_name_that_looks_like_a_path_is_never_sent_to_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.setattr(weights_module, "snapshot_download", lambda *a, **k: pytest.fail("was sent"))
    monkeypatch.chdir(tmp_path)
    if name in ("..", "../..", ""):  # folders that are there
        assert weights_folder(name) == Path(name)
        return
    with pytest.raises(BadWeights, match="there is no such folder"):
        weights_folder(name)


# nothing that a user hands in can run


class Runs:
    """What a pickle would do when it is loaded."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore")
def test_no_pickle_of_a_users_file_is_loaded(stored, tmp_path, monkeypatch):
    marker = tmp_path / "it ran"
    for bomb in (
        pickle.dumps(Runs(marker)),
        _saved(Runs(marker), tmp_path),
        _saved({"generator": Runs(marker)}, tmp_path),
    ):
        (stored / "model.safetensors").write_bytes(bomb)
        with pytest.raises(BadWeights):
            load_network(stored, EdgeGenerator)
        (stored / "checkpoint.pt").write_bytes(bomb)
        with pytest.raises(TrainingStopped):
            load_checkpoint(stored, {}, EdgeTraining())
        (tmp_path / "vgg19-.pth").write_bytes(bomb)
        monkeypatch.setattr(features.re, "search", lambda *a: [0, ""])  # as if its name held its hash
        with pytest.raises(ValueError, match="not a file of weights"):
            features.load_vgg19(tmp_path / "vgg19-.pth")
        monkeypatch.undo()
    assert not marker.exists()
    pickle.loads(pickle.dumps(Runs(marker)))
    assert marker.exists()  # the bomb was one


def _saved(value, folder):
    torch.save(value, folder / "saved.pt")
    return (folder / "saved.pt").read_bytes()


RUNNERS = ("pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "os.system", "torch.jit.load", "yaml.load",
           "marshal.loads", "shelve.open", "joblib.load", "__import__")  # fmt: skip


def test_the_package_has_no_call_that_could_run_a_file():
    """torch.load only with weights_only=True, and none of the others at all."""
    loads = 0
    for file in (ROOT / "edgeconnect_lite").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name == "torch.load":
                loads += 1
                assert arguments["weights_only"] == "True", file
            assert name not in RUNNERS, file
            assert arguments.get("allow_pickle") != "True", file
    assert loads >= 2


# strokes, and what the editor keeps and hears


@pytest.mark.parametrize("given", [
    {"points": [[0, 0]] * 20_001}, {"points": [[-60, 0], [110, 0]] * 9000}, {"points": [[2**63, 0]]}, {"points": [[1, 2], [3]]},
    {"points": [[True, False]]}, {"points": [[1.0, 2]]}, {"points": "[[1, 2]]"}, {"points": {}}, {"points": None}, {},
    {"points": [[[1, 2]]]}, {"points": [[1, 2]], "radius": []}, {"points": [[1, 2]], "radius": -1},
    {"points": [[1, 2]], "radius": [1, 2]}, {"points": [[1, 2]], "radius": 10**30}, {"tool": ["pen"]}, {"tool": None},
    {"tool": "edges", "bits": "é"}, {"tool": "hole", "bits": base64.b64encode(bytes(10**6)).decode()},
    {"tool": "hole", "bits": 7},
])  # fmt: skip
def test_strokes_that_cannot_be_drawn(given):
    with pytest.raises(BadStroke) as caught:
        check_stroke({"tool": "pen"} | given, (60, 60))
    assert len(str(caught.value)) < 300


def test_the_longest_path_is_allowed():
    there_and_back = [[-60, 0], [120, 0]] * (MAX_LENGTH // 360)
    assert check_stroke({"tool": "pen", "points": there_and_back[:5000]}, (60, 60))


class Painter:
    size = 32

    def predict_edges(self, photo, mask):
        return mask * 0.25

    def __call__(self, photo, mask, edges):
        return photo


@pytest.fixture
def kept(tmp_path):
    """A folder with an editor's state of one stroke."""
    mask = np.zeros((32, 32), bool)
    mask[8:20, 8:20] = True
    editor = EdgeEditor(shapes_photo(32, 32), mask, Painter())
    editor.line([(9, 9), (15, 15)])
    editor.save(tmp_path)
    return tmp_path


def as_text(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("change", [
    {"history": {"position": 1.0}}, {"history": {"position": True}}, {"history": {"position": 2}},
    {"history": {"position": -1}},
    {"history": {"strokes": [{"tool": "clear"}] * 10_001}}, {"history": {"strokes": {}}}, {"history": {"hole": ""}},
    {"history": None}, {"version": "9" * 5000}, {"threshold": 10**30}, {"threshold": "x"}, {"proposal": 99}, {"pictures": []},
    {"pictures": {"photo": as_text(png(60_000, 60_000))}}, {"pictures": {"photo": as_text(png(2**31 - 1, 2**31 - 1))}},
    {"pictures": {"photo": as_text(b"P6 32 32 255 " + bytes(3 * 32 * 32))}}, {"pictures": {"photo": "x"}},
    {"pictures": {"photo": ""}}, {"pictures": {"photo": 7}}, {"pictures": {"probability": as_text(png(8, 8))}},
])  # fmt: skip
def test_a_saved_editor_that_was_changed(kept, change):
    state = json.loads((kept / STATE).read_text())
    for name, value in change.items():
        state[name] = state[name] | value if isinstance(value, dict) else value
    (kept / STATE).write_text(json.dumps(state))
    with pytest.raises(EditorNotSaved, match=rf"{STATE}: not an editor's state, or broken"):
        EdgeEditor.load(kept, Painter())


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "3", "\x00", "[[1, 2], [1e400, 3]]", "[[1, 2], [1e200, 3]]"])
def test_eyes_and_states_that_are_no_such_things(tmp_path, text):
    server = EditorServer(shapes_photo(40, 50), None, Painter(), tmp_path)
    server.hear({"do": "edit"})
    server.save()
    server.server_close()
    for file in (EYES, STATE):
        (tmp_path / file).write_text(text)
        with pytest.raises(EditorNotSaved, match=file) as caught:  # which keeps alive what raised it
            EditorServer(shapes_photo(40, 50), None, Painter(), tmp_path, server.server_port)
        socket.create_server(("127.0.0.1", server.server_port)).close()  # the port is free again
        del caught


@pytest.mark.parametrize("eyes", [[[10**400, 1], [2, 3]], [[1e300, 1], [2, 3]], [[float("nan"), 1], [2, 3]], "x", None])
def test_eyes_that_no_photo_has(eyes):
    with pytest.raises(ValueError, match="eyes are"):
        similarity(eyes)


def test_requests_that_lie_end_and_the_server_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "timeout", 0.5)
    server = EditorServer(shapes_photo(32, 32), None, Painter(), tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    head = f"Host: 127.0.0.1:{server.server_port}\r\nContent-Length: ".encode()

    def said(length: bytes, body: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
            connection.sendall(
                f"POST /{server.secret}/message HTTP/1.1\r\n".encode() + head + length + b"\r\n\r\n" + body
            )
            return connection.recv(1 << 16)

    try:
        for length in (b"9" * 6000, b"-1", b"1e3", b"\xb2"):
            assert b" 404 " in said(length, b"")
        deep = b"[" * 100_000
        assert b" 400 " in said(str(len(deep)).encode(), deep)
        assert b" 200 " not in said(b"1000", b"{")  # promises more than comes
        assert b" 200 " in said(b"2", b"{}")
    finally:
        server.shutdown()
        server.server_close()
