"""evaluation.py and evaluation_report.py: the figures are those of the pictures, and the cases are picked by rank."""

import json

import numpy as np
import pytest
from helpers import blob_mask, shapes_photo

from edgeconnect_lite.edges import known_edges, merge_edges, true_edges
from edgeconnect_lite.evaluation import (
    METHODS,
    CentreBox,
    Picture,
    drawn_adherence,
    evaluate,
    hole,
    mask_sets,
    measure,
    random_stroke,
    summarize,
)
from edgeconnect_lite.evaluation_report import (
    by_rank,
    cases,
    measure_proposals,
    median_results,
    print_report,
    rank_panel,
    run_evaluation,
    split,
)
from edgeconnect_lite.figures import plot_results
from edgeconnect_lite.inpainting import composite
from edgeconnect_lite.masks import RandomMasks
from edgeconnect_lite.metrics import edge_counts, grow, hole_l1, hole_psnr, precision_recall_f1, telea
from edgeconnect_lite.photos import FacePhotos

BOXES = RandomMasks("boxes", 64)


def draw_lines(photo, mask, edges):
    """A result that follows its edges: dark ground, and every edge a white line."""
    return composite(photo, np.where(edges[..., None], np.uint8(255), np.uint8(20)).repeat(3, 2), mask)


class Stub:
    """Stands in for Inpainter: knows the photos' true edges, shifted by `shift` px, and paints by `paint`."""

    def __init__(self, shift=0, paint=draw_lines):
        self.shift, self.paint, self.calls = shift, paint, []

    def predict_edges(self, photo, mask):
        inside = np.roll(true_edges(photo), self.shift, 1)
        return merge_edges(known_edges(photo, mask), inside, mask).astype(np.float32)

    def __call__(self, photo, mask, edges):
        self.calls.append(edges)
        return self.paint(photo, mask, edges)


class Proposer(Stub):
    """Proposal j is the truth moved by j * step px."""

    step = 0

    def propose_edges(self, photo, mask, n=4, seed=0):
        self.seeds = [*getattr(self, "seeds", []), seed]
        return np.stack([np.roll(true_edges(photo), j * self.step, 1) for j in range(n)]).astype(np.float32)


@pytest.fixture(scope="module")
def photos():
    return [shapes_photo(64, 64, seed) for seed in range(5)]


@pytest.fixture(scope="module")
def pictures(photos):
    return measure(Stub(), photos, BOXES, also={"late": Stub(shift=3)})


# masks


def test_the_three_sets_and_their_bins():
    sets = mask_sets()
    assert list(sets) == ["strokes", "brush", "box"]
    assert list(sets["strokes"]) == ["any", "0-10%", "10-20%", "20-30%", "30-40%", "40-50%", "50-60%"]
    assert 0.2 <= hole(sets["brush"]["20-40%"], 0, 7).mean() <= 0.4
    box = hole(sets["box"]["25%"], 0, 0)
    assert box.mean() == 0.25 and box[32:96, 32:96].all() and np.array_equal(box, hole(CentreBox(), 5, 9))


def test_mask_i_depends_on_seed_and_i_alone():
    masks = RandomMasks("brush", 64)
    one = [hole(masks, 3, i) for i in range(4)]
    assert np.array_equal(hole(masks, 3, 2), one[2])
    assert not np.array_equal(one[2], one[1]) and not np.array_equal(one[2], hole(masks, 4, 2))


@pytest.mark.parametrize("kind", ["strokes", "brush", "boxes"])
def test_a_stroke_is_seeded_thin_connected_and_inside_the_hole(kind):
    import cv2
    from skimage.morphology import skeletonize

    masks, lengths = RandomMasks(kind, 128), []
    for index in range(20):
        mask = hole(masks, 1, index)
        stroke = random_stroke(mask, np.random.default_rng(index))
        assert np.array_equal(stroke, random_stroke(mask, np.random.default_rng(index)))
        assert stroke.any() and not (stroke & ~mask).any()
        assert cv2.connectedComponents(stroke.astype(np.uint8), connectivity=8)[0] == 2
        assert stroke.sum() <= 1.3 * skeletonize(stroke).sum()
        lengths.append(stroke.sum())
    assert np.median(lengths) >= 20


# one picture, one set


def test_every_method_gets_the_edges_of_its_name(photos):
    photo, mask, stub = photos[0], blob_mask(64, 64), Stub(shift=2)
    [picture] = measure(stub, [photo], type("One", (), {"draw": lambda self, rng: mask})())
    predicted, true, none = stub.calls[:3]
    assert np.array_equal(predicted, stub.predict_edges(photo, mask) > 0.5) and np.array_equal(true, true_edges(photo))
    assert np.array_equal(none, known_edges(photo, mask)) and not (none & mask).any()
    assert list(picture.scores) == list(METHODS)
    result = draw_lines(photo, mask, true)
    psnr, _, l1 = picture.scores["true"]
    assert psnr == hole_psnr(result, photo, mask) and l1 == hole_l1(result, photo, mask)
    assert picture.edge_effect == hole_l1(result, draw_lines(photo, mask, none), mask)
    assert picture.exact["predicted"].tolist() == edge_counts(predicted, true_edges(photo), mask).tolist()
    fill = true_edges(telea(photo, mask))
    assert picture.exact["telea"].tolist() == edge_counts(fill, true_edges(photo), mask).tolist()
    assert picture.gain == picture.scores["predicted"][0] - picture.scores["telea"][0]


def test_a_set_is_means_of_pictures_and_pooled_edges(pictures):
    table = summarize(pictures)
    assert list(table) == [*METHODS, "late"]
    for method, figures in table.items():
        psnr = [picture.scores[method][0] for picture in pictures]
        low, high = figures["psnr_interval"]
        assert figures["psnr"] == pytest.approx(np.mean(psnr))
        assert min(psnr) <= low <= figures["psnr"] <= high <= max(psnr)
        assert figures["photos"] == 5 and figures["frechet"] > -1e-3 and np.isfinite(figures["kernel"])
    counts = np.sum([picture.exact["late"] for picture in pictures], axis=0)
    assert [table["late"][key] for key in ("precision", "recall", "f1")] == precision_recall_f1(counts).tolist()
    assert table["predicted"]["f1"] == 1 and table["predicted"]["f1_interval"] == [1, 1]
    assert table["late"]["f1"] < table["late"]["f1_interval"][1] < 1
    assert table["predicted"]["line_width_ratio"] == 1
    gaps = {pair: np.mean([p.scores[pair[0]][0] - p.scores[pair[1]][0] for p in pictures])
            for pair in [("predicted", "telea"), ("true", "predicted"), ("late", "predicted")]}  # fmt: skip
    for (better, worse), gap in gaps.items():
        assert table[better][f"over_{worse}"] == pytest.approx(gap)
    assert {"over_telea", "over_none", "drawn_adherence"} <= set(table["predicted"])
    assert "f1" not in table["true"] and "line_width" in table["telea"]
    json.dumps(table, allow_nan=False)


def test_one_photo_has_no_distance_between_sets_and_none_is_an_error(photos):
    table = evaluate(Stub(), photos[:1], BOXES)
    assert "frechet" not in table["telea"] and table["telea"]["photos"] == 1
    with pytest.raises(ValueError, match="no photo to evaluate on"):
        evaluate(Stub(), [], BOXES)
    with pytest.raises(ValueError, match="named true; wanted names that no method has"):
        evaluate(Stub(), photos, BOXES, also={"true": Stub()})
    empty = type("Empty", (), {"draw": lambda self, rng: np.zeros((64, 64), bool)})()
    with pytest.raises(ValueError, match="mask 0 has no hole"):
        evaluate(Stub(), photos, empty)


def test_the_same_seed_measures_the_same_and_another_does_not(photos):
    same = [evaluate(Stub(), photos[:2], BOXES, seed=seed) for seed in (2, 2, 3)]
    assert same[0] == same[1] != same[2]


# adherence


def test_a_result_that_draws_what_it_is_given_adheres_and_one_that_does_not_look_does_not():
    photos = [np.full((128, 128, 3), 90, np.uint8)] * 12  # no true edge anywhere: all of a stroke contradicts it
    lines = np.full((128, 128, 3), 90, np.uint8)
    lines[::9] = 200  # about a half of the hole lies near their edges
    blind = lambda photo, mask, edges: composite(photo, lines, mask)  # noqa: E731
    for paint, low, high in ((draw_lines, 0.9, 1.0), (blind, -0.15, 0.15)):
        table = evaluate(Stub(paint=paint), photos, RandomMasks("brush", 128, (0.2, 0.4)))
        assert low <= table["predicted"]["drawn_adherence"] <= high
        assert table["predicted"]["drawn_adherence_photos"] == len(photos)
        assert table["predicted"]["drawn_adherence_chance"] < 0.7
    still = evaluate(Stub(paint=lambda photo, mask, edges: photo), photos, CentreBox())
    assert still["predicted"]["drawn_adherence"] == 0 and still["predicted"]["drawn_adherence_chance"] == 0


def test_a_drawn_stroke_is_over_the_predicted_edges_and_counts_only_where_it_contradicts():
    photo, mask = shapes_photo(128, 128, 3), CentreBox().mask
    stub, true = Stub(), true_edges(photo)
    found = drawn_adherence(stub, photo, mask, true, np.random.default_rng(0))
    stroke = random_stroke(mask, np.random.default_rng(0))
    [given] = stub.calls
    assert given[stroke].all() and not (given & mask & grow(stroke, 3) & ~stroke).any()
    assert np.array_equal(given & ~grow(stroke, 3), true & ~grow(stroke, 3)) and np.array_equal(
        given[~mask], true[~mask]
    )
    away = mask & ~grow(true, 1)
    assert found["drawn"][1] == found["drawn_away"][1] == (stroke & away).sum() < stroke.sum()
    assert (found["drawn"][3], found["drawn_away"][3]) == (mask.sum(), away.sum())


def test_where_no_stroke_fits_none_is_counted(photos):
    mask = np.zeros((64, 64), bool)
    mask[30:34, 30:34] = True
    assert drawn_adherence(Stub(), photos[0], mask, true_edges(photos[0]), np.random.default_rng(0)) == {}
    tiny = type("Tiny", (), {"draw": lambda self, rng: mask})()
    assert "drawn_adherence" not in evaluate(Stub(), photos, tiny)["predicted"]


# proposals


def test_proposals_are_measured_one_by_one_at_their_best_and_against_each_other(photos):
    stub = Proposer()
    equal = measure_proposals(stub, photos, BOXES, seed=5, n=3, limit=4)
    assert equal == {"photos": 4, "n": 3, "f1": 1, "best_f1": 1, "predicted_f1": 1, "diversity": 0}
    assert stub.seeds == [5, 6, 7, 8]
    stub.step = 4
    apart = measure_proposals(stub, photos, BOXES, n=3)
    assert apart["best_f1"] == 1 and apart["f1"] < 0.8 and 0.3 < apart["diversity"] <= 1 and apart["photos"] == 5
    masks, rows = [hole(BOXES, 0, i) for i in range(5)], []
    for photo, mask in zip(photos, masks):
        some = stub.propose_edges(photo, mask, 3) > 0.5
        rows += [edge_counts(some[i], some[j], mask) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert apart["diversity"] == pytest.approx(1 - precision_recall_f1(np.sum(rows, 0))[2])


def test_no_proposals_and_bad_ones(photos):
    assert measure_proposals(Stub(), photos, BOXES) is None
    with pytest.raises(ValueError, match="n is 1"):
        measure_proposals(Proposer(), photos, BOXES, n=1)
    bad = Proposer()
    bad.propose_edges = lambda photo, mask, n, seed: np.zeros((n, 3, 3))
    with pytest.raises(ValueError, match=r"gave \(4, 3, 3\); wanted \(4, 64, 64\)"):
        measure_proposals(bad, photos, BOXES)


# splits and ranks


def picture(index, psnr, telea_psnr=20.0, counts=(4, 4, 2, 2)):
    """A Picture of which only the gain and the edges matter."""
    scores = {"predicted": (psnr, 0.0, 0.0), "telea": (telea_psnr, 0.0, 0.0)}
    return Picture(index, 0.1, scores, {}, {"predicted": np.array(counts)}, {}, {}, {}, 0.0)


def test_splits_of_the_test_faces_have_the_sizes_on_the_card():
    records = FacePhotos("test").records
    found = split([picture(i, 20.0 + i % 2) for i in range(500)], records)
    sizes = {column: [group["photos"] for group in groups.values()] for column, groups in found.items()}
    assert sizes["skin_luminance"] == [41, 56, 127, 181, 95]  # 8.2, 11.2, 25.4, 36.2, 19.0 %
    assert sizes["glasses"] == [438, 62] and sum(sizes["yaw"]) == 500 and min(sizes["yaw"]) > 10
    turned = [abs(float(row["yaw"])) for row in records]
    assert sizes["yaw"] == [sum(x < 8 for x in turned), sum(8 <= x < 16 for x in turned), sum(x >= 16 for x in turned)]


def test_a_group_s_figures_are_those_of_its_pictures():
    row = {"yaw": "0", "glasses": "0", "skin_luminance": "0.2"}
    records = [row, row | {"glasses": "1"}, row | {"yaw": "-20.5"}, row | {"glasses": "1"}]
    found = split([picture(0, 21), picture(2, 25, counts=(4, 4, 0, 0)), picture(3, 24)], records)
    assert {name: group["over_telea"] for name, group in found["glasses"].items()} == {"no": 3, "yes": 4}
    assert found["yaw"]["16+"]["f1"] == 0 and found["yaw"]["<8"]["f1"] == 0.5
    assert "8-16" not in found["yaw"] and list(found["skin_luminance"]) == [".18-.30"]


def test_ranks_are_by_gain_over_telea():
    pairs = [(20, 19), (30, 40), (25, 20), (18, 15), (9, 9), (22, 20), (1, 2)]
    some = [picture(i, psnr, telea_psnr) for i, (psnr, telea_psnr) in enumerate(pairs)]
    ranks = {name: [p.index for p in chosen] for name, chosen in by_rank(some, 2).items()}
    assert ranks == {"best": [2, 3], "median": [5, 0], "worst": [6, 1]}
    assert [p.index for p in by_rank(some, 1)["median"]] == [0] and len(by_rank(some[:2], 3)["median"]) == 2
    with pytest.raises(ValueError, match="k is 0"):
        by_rank(some, 0)


def test_cases_are_the_wanted_pictures_with_their_own_holes(photos):
    stub = Stub()
    pictures = [picture(i, gain) for i, gain in enumerate((30, 29, 28, 27, 26))]
    wanted = [pictures[3], pictures[1]]
    for case, index in zip(cases(stub, photos, BOXES, wanted, seed=9), (3, 1)):
        assert np.array_equal(case["photo"], photos[index])
        assert np.array_equal(case["mask (white = hole)"], hole(BOXES, 9, index))
    [middle] = median_results(stub, photos, BOXES, pictures, k=1, seed=9)
    assert np.array_equal(middle[~hole(BOXES, 9, 2)], photos[2][~hole(BOXES, 9, 2)])
    panel = rank_panel(stub, photos, BOXES, pictures, k=1)
    assert [axis.get_ylabel().split("\n")[0] for axis in panel.axes[::7]] == [
        "best, photo 0", "median, photo 2", "worst, photo 4",
    ]  # fmt: skip
    assert [axis.get_title() for axis in panel.axes[:7]][-3:] == ["predicted", "true", "photo"]


# the report


def test_the_whole_report(photos, capsys):
    records = [{"yaw": "3", "glasses": "0", "skin_luminance": "0.2"}] * 5
    sets = {"strokes": {"any": BOXES, "20-30%": BOXES}, "brush": {"20-40%": RandomMasks("brush", 64, (0.2, 0.4))}}
    report, panels = run_evaluation(Proposer(), photos, sets, also={"late": Stub(3)}, records=records)
    assert {name: list(bins) for name, bins in report["results"].items()} == {
        "strokes": ["any", "20-30%"],
        "brush": ["20-40%"],
    }
    assert list(report["splits"]) == ["strokes any", "brush 20-40%"] and list(report["proposals"]) == ["brush 20-40%"]
    assert list(panels) == ["strokes 20-30%", "brush 20-40%"]
    assert len(json.dumps(report["results"]["brush"]["20-40%"], allow_nan=False)) < 6000
    print_report(report)
    printed = capsys.readouterr().out
    best = report["results"]["strokes"]["any"]["true"]
    low, high = best["over_telea_interval"]
    for words in ("everything on the hole", "late", "drawn", "Frechet", f"{best['psnr']:.2f}", "yaw <8", "4 proposals",
                  f"{best['over_telea']:.2f} [{low:.2f}, {high:.2f}]"):  # fmt: skip
        assert words in printed
    plot = plot_results({"a": report["results"]["strokes"]["any"], "b": report["results"]["brush"]["20-40%"]})
    psnr, f1 = plot.axes
    assert [text.get_text() for text in psnr.get_legend().get_texts()] == [*METHODS, "late"]
    assert set(text.get_text() for text in f1.get_legend().get_texts()) == {"telea", "predicted", "late"}


def test_without_a_table_of_the_photos_and_without_proposals_both_are_left_out(photos):
    report, _ = run_evaluation(Stub(), photos[:2], {"mine": {"any": BOXES}})
    assert list(report) == ["results"]
