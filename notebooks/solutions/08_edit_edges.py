"""Solutions to the exercises of lesson 08. Try them yourself first: the checkers tell you where you stand."""

from edgeconnect_lite.metrics import edge_effect


def mirrored(strokes, width):
    def turned(stroke):
        return {"points": [[width - 1 - x, y] for x, y in stroke["points"]]} if "points" in stroke else {}

    return [stroke | turned(stroke) for stroke in strokes]


def strokes_held(acts):
    held, undone = [], []
    for act in acts:
        if act == "undo":
            undone += [held.pop()] if held else []
        elif act == "redo":
            held += [undone.pop()] if undone else []
        else:
            held, undone = [*held, act], []
    return held


def stroke_effects(paint, strokes, mask):
    whole = paint(strokes)
    rest = [strokes[:i] + strokes[i + 1 :] for i in range(len(strokes))]
    return [edge_effect(whole, paint(kept), mask) for kept in rest]
