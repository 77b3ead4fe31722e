// The editor's front end, without dependencies. The rules of strokes.py once more (compared with Python's pixel by pixel), then
// the store that all views of one editor share, then the view.

// ----- strokes: the same pixels as strokes.py -----

export const [UNTOUCHED, DRAWN, ERASED] = [0, 1, 2];
const PATHS = ["pen", "eraser", "mask", "unmask"];
const [MAX_POINTS, RECENT, APART] = [20000, 64, 50];

/** All pixels of the straight line from a to b but the first: (x, y) => void for each. */
export function walk([ax, ay], [bx, by], visit) {
  const dx = bx - ax, dy = by - ay, steps = Math.max(Math.abs(dx), Math.abs(dy), 1);
  for (let i = 1; i <= steps; i++)
    visit(ax + Math.floor((2 * i * dx + steps) / (2 * steps)), ay + Math.floor((2 * i * dy + steps) / (2 * steps)));
}

/** Visit the indices of a disc's pixels: those whose centres lie within radius + 1/4 of (x, y). */
function disc(x, y, radius, w, h, visit) {
  const limit = (4 * radius + 1) ** 2;
  for (let j = Math.max(0, y - radius); j <= Math.min(h - 1, y + radius); j++)
    for (let i = Math.max(0, x - radius); i <= Math.min(w - 1, x + radius); i++)
      if (16 * ((i - x) ** 2 + (j - y) ** 2) <= limit) visit(j * w + i);
}

const nears = new WeakMap();

/** The hole and all pixels within 2 px of it, kept for each mask; working: the mask may have changed. */
export function nearHole(mask, w, h, working) {
  if (!working && nears.has(mask)) return nears.get(mask);
  const near = new Uint8Array(w * h);
  mask.forEach((v, k) => {
    const x = k % w, y = (k - x) / w;
    if (v) for (let j = Math.max(0, y - 2); j < Math.min(h, y + 3); j++) near.fill(1, j * w + Math.max(0, x - 2), j * w + Math.min(w, x + 3));
  });
  nears.set(mask, near);
  return near;
}

/** Change layers ({mask, touched}, owned by the caller) along one step of a path: from point a to b, with b's radius. */
export function paintStep(layers, tool, a, b, radius, w, h) {
  const value = tool === "pen" ? DRAWN : ERASED;
  const hole = tool === "mask" || tool === "unmask", near = hole ? null : nearHole(layers.mask, w, h);
  const visit = hole ? (k) => { layers.mask[k] = tool === "mask" ? 1 : 0; } : (k) => { if (near[k]) layers.touched[k] = value; };
  const at = (x, y) => disc(x, y, radius, w, h, visit);
  if (a) walk(a, b, at); else at(...b);
}

export function unpackBits(text, count) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), plane = new Uint8Array(count);
  for (let k = 0; k < count; k++) plane[k] = (packed[k >> 3] >> (7 - (k & 7))) & 1;
  return plane;
}

export function packBits(plane) {
  const packed = new Uint8Array((plane.length + 7) >> 3);
  plane.forEach((v, k) => { if (v) packed[k >> 3] |= 128 >> (k & 7); });
  let text = "";
  for (const byte of packed) text += String.fromCharCode(byte);
  return btoa(text);
}

/** The layers after a stroke; the given ones stay as they are. */
export function applyStroke({ mask, touched }, stroke, w, h) {
  const { tool } = stroke;
  if (PATHS.includes(tool)) {
    const edges = tool === "pen" || tool === "eraser";
    const layers = { mask: edges ? mask : mask.slice(), touched: edges ? touched.slice() : touched };
    stroke.points.forEach((point, i) => {
      const radius = Array.isArray(stroke.radius) ? stroke.radius[i] : stroke.radius;
      paintStep(layers, tool, i ? stroke.points[i - 1] : null, point, radius, w, h);
    });
    return layers;
  }
  if (tool === "reset") return { mask, touched: new Uint8Array(touched.length) };
  const near = nearHole(mask, w, h);
  if (tool === "clear") return { mask, touched: touched.map((v, k) => (near[k] ? ERASED : v)) };
  const given = unpackBits(stroke.bits, w * h);
  if (tool === "hole") return { mask: given, touched };
  return { mask, touched: touched.map((v, k) => (near[k] ? (given[k] ? DRAWN : ERASED) : v)) };
}

export class History {
  constructor(hole, w, h) {
    Object.assign(this, { w, h, strokes: [], position: 0 });
    this.kept = new Map([[0, { mask: hole, touched: new Uint8Array(w * h) }]]);
  }
  get layers() {
    if (!this.kept.has(this.position)) {
      const start = Math.max(...[...this.kept.keys()].filter((n) => n < this.position));
      let layers = this.kept.get(start);
      for (const stroke of this.strokes.slice(start, this.position)) layers = applyStroke(layers, stroke, this.w, this.h);
      this.kept.set(this.position, layers);
    }
    return this.kept.get(this.position);
  }
  do(stroke) {
    const after = applyStroke(this.layers, stroke, this.w, this.h);
    this.strokes.length = this.position;
    this.strokes.push(stroke);
    const last = ++this.position, recent = Math.max(4, Math.min(RECENT, Math.floor(2 ** 20 / (this.w * this.h))));
    for (const n of [...this.kept.keys()])
      if (n >= last || (n <= last - recent && n % APART)) this.kept.delete(n);
    this.kept.set(last, after);
  }
  undo() { if (this.position) this.position--; }
  redo() { if (this.position < this.strokes.length) this.position++; }
}

// ----- the store: one for each editor, whatever the number of its views -----

const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
const stores = new Map();

class Store extends EventTarget {
  constructor(model) {
    super();
    [this.h, this.w] = model.get("_shape");
    this.model = model;
    this.name = Math.random().toString(36);  // so that it knows its own acts when the kernel passes them on
    this.take(model.get("_history"));
    this.received = (message) => this.receive(message);
    model.on("msg:custom", this.received);
  }
  close() { this.model.off("msg:custom", this.received); }
  take({ hole, strokes, position, acts }) {
    this.acts = acts;
    this.history = new History(unpackBits(hole, this.w * this.h), this.w, this.h);
    strokes.forEach((stroke) => this.history.do(stroke));
    this.history.position = position;
  }
  receive(message) {  // what Python did, or what holds there
    if (message.from === this.name) return;
    if (message.type === "history") this.take(message);
    else if (message.at === this.acts) { this.history[message.type](message.stroke); this.acts++; }
    else return;  // both at once: the kernel will say what holds
    this.dispatchEvent(new Event("change"));
  }
  act(type, stroke) {
    const before = this.history.position, message = { type, at: this.acts, from: this.name };
    this.history[type](stroke);
    if (before === this.history.position) return;
    this.acts++;
    this.model.send(stroke ? { ...message, stroke } : message);
    this.dispatchEvent(new Event("change"));
  }
}

export function storeOf(model) {
  const key = model.get("_key");
  if (!stores.has(key)) stores.set(key, new Store(model));
  return stores.get(key);
}

function initialize({ model }) {
  const key = model.get("_key");
  storeOf(model);
  return () => { stores.get(key)?.close(); stores.delete(key); };
}

// ----- the view -----

const ICONS = {
  pen: "M3 17l1-4L14 3l3 3L7 16z", eraser: "M4 13l8-8 5 5-7 7H7z M9 8l5 5", mask: "M10 3a7 7 0 100 14 7 7 0 000-14z M10 7v6 M7 10h6",
  unmask: "M10 3a7 7 0 100 14 7 7 0 000-14z M7 10h6", undo: "M8 5L4 9l4 4 M4 9h8a4 4 0 010 8h-2", redo: "M12 5l4 4-4 4 M16 9H8a4 4 0 000 8h2",
  line: "M4 16L16 4", polyline: "M3 15l5-8 4 6 5-9", previous: "M12 5l-5 5 5 5", next: "M8 5l5 5-5 5", compare: "M10 3v14 M3 6h5v8H3 M12 6h5v8h-5",
  more: "M4 10h.1 M10 10h.1 M16 10h.1",
};
const KEYS = [["B", "draw"], ["E", "erase"], ["M / N", "grow / shrink the hole"], ["L / P", "line / polyline (Enter ends it)"], ["[ ]", "size"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"], [", .", "proposals"], ["hold C", "before"], ["+ − 0", "zoom"],
  ["arrows", "move, Shift: by 8"], ["Space", "pen down or up"], ["Esc", "give a stroke up"]];

const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

const icon = (name) => make("span", { className: "ee-icon", innerHTML:
  `<svg viewBox="0 0 20 20" aria-hidden="true"><path d="${ICONS[name]}"/></svg>` });

function pictureOf(rgb, w, h) {  // a canvas of w x h, from 3 bytes a pixel
  const canvas = make("canvas", { width: w, height: h }), context = canvas.getContext("2d");
  const image = context.createImageData(w, h);
  for (let k = 0; k < w * h; k++) {
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = rgb[3 * k + c];
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function render({ model, el }) {
  const store = storeOf(model), { w, h } = store, stop = new AbortController(), listen = { signal: stop.signal };
  const paints = model.get("_paints"), colours = model.get("_colours"), truth = bytes(model.get("_true"));
  const view = { tool: "pen", radius: { pen: 0, eraser: 2, mask: 6, unmask: 6 }, opacity: 0.6, outline: true, truth: false, divider: 0,
    before: false, zoom: 1, x: 0, y: 0, pane: 320 };
  const photo = pictureOf(bytes(model.get("_photo")), w, h);
  const ink = make("canvas", { width: w, height: h }), inkContext = ink.getContext("2d");
  let probability, predicted, result = null, outline = null, working = null;
  let stroke = null, cursor = [w >> 1, h >> 1], cursorShown = false, corners = null, pinch = null, panning = null, localMessage = "";
  const pointers = new Map();

  // --- what is in sight ---
  const button = (name, label, title, act, pressed) => {
    const node = make("button", { type: "button", title, className: label ? "" : "ee-square" }, icon(name), label);
    node.dataset.act = name;
    node.setAttribute("aria-label", title);
    if (pressed !== undefined) node.setAttribute("aria-pressed", pressed);
    if (act) node.addEventListener("click", act, listen);
    return node;
  };
  const plain = (name, label, title, act) => {
    const node = make("button", { type: "button", title, textContent: label });
    node.dataset.act = name;
    node.addEventListener("click", act, listen);
    return node;
  };
  const range = (name, title, min, max, step, act) => {
    const node = make("input", { type: "range", min, max, step, title });
    node.dataset.act = name;
    node.setAttribute("aria-label", title);
    node.addEventListener("input", () => act(+node.value), listen);
    return node;
  };
  const tick = (name, label, act) => {
    const node = make("input", { type: "checkbox" });
    node.dataset.act = name;
    node.addEventListener("change", () => act(node.checked), listen);
    return make("label", {}, node, label);
  };
  const group = (label, ...nodes) => {
    const node = make("span", { className: "ee-group" }, ...nodes.filter(Boolean));
    node.setAttribute("role", "group");
    node.setAttribute("aria-label", label);
    return node;
  };
  const tools = Object.fromEntries([
    ["pen", "Draw", "Draw edges (B)"], ["eraser", "Erase", "Erase edges (E)"], ["mask", "Grow hole", "Grow hole: paint what is to be filled (M)"],
    ["unmask", "Shrink hole", "Shrink hole: give the photo back (N)"], ["line", "Line", "Straight line (L)"],
    ["polyline", "Polyline", "Polyline: click its corners, Enter or double click ends it (P)"],
  ].map(([name, label, title]) => [name, button(name, label, title, () => choose(name), false)]));
  const size = range("size", "size of the brush, in px ( [ and ] )", 0, 24, 1, (value) => setRadius(value));
  const sizeSaid = make("output", { className: "ee-number" });
  const undo = button("undo", "", "Undo (Ctrl+Z)", () => store.act("undo"));
  const redo = button("redo", "", "Redo (Ctrl+Shift+Z)", () => store.act("redo"));
  const proposalSaid = make("output", { className: "ee-number" });
  const proposals = model.get("_proposals") && group("Proposals of stage 1",
    button("previous", "", "Previous proposal (,)", () => propose(-1)), proposalSaid, button("next", "", "Next proposal (.)", () => propose(1)));
  const compare = paints && button("compare", "Before", "Before: hold to see the photo (hold C)", null, false);
  const more = button("more", "", "More tools", () => openDrawer(drawer.hidden));
  more.setAttribute("aria-expanded", "false");
  const bar = make("div", { className: "ee-bar" }, group("Edges", tools.pen, tools.eraser), group("Hole", tools.mask, tools.unmask),
    make("label", { className: "ee-group" }, "size", size, sizeSaid), group("History", undo, redo), ...[proposals, compare, more].filter(Boolean));
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "Edge editor");
  const confidence = range("confidence", "Confidence: how sure stage 1 must be of an edge that is shown", 1, 255, 1, (value) => tell("threshold", value));
  const confidenceSaid = make("output", { className: "ee-number" });
  const opacity = range("opacity", "Photo: its opacity", 0, 1, 0.05, (value) => { view.opacity = value; draw(); });
  const file = make("input", { type: "file", accept: "image/png,image/*", hidden: true });
  const drawer = make("div", { className: "ee-drawer", hidden: true },
    group("Lines", tools.line, tools.polyline),
    group("All edges of the hole", plain("clear", "Clear", "No edge in the hole", () => store.act("do", { tool: "clear" })),
      plain("reset", "Reset", "Back to the predicted edges", () => store.act("do", { tool: "reset" }))),
    make("label", { className: "ee-group" }, "confidence", confidence, confidenceSaid), make("label", { className: "ee-group" }, "photo", opacity),
    tick("outline", "outline", (on) => { view.outline = on; draw(); }),
    truth.length ? tick("truth", "true edges", (on) => { view.truth = on; paintInk(); draw(); }) : "",
    group("Zoom", plain("zoomout", "−", "Zoom out (-)", () => zoomBy(1 / 1.5)), plain("fit", "Fit", "Whole picture (0)", () => fit()),
      plain("zoomin", "+", "Zoom in (+)", () => zoomBy(1.5))),
    group("Save as PNG", "save", paints ? plain("saveresult", "result", "Save the result as PNG", () => savePng("result")) : "",
      plain("saveedges", "edges", "Save the edges as PNG", () => savePng("edges")), plain("savemask", "mask", "Save the hole as PNG", () => savePng("mask"))),
    group("Open a PNG", "open", plain("openedges", "edges", "Take the edges from a picture, white = edge", () => openFile("edges")),
      plain("openmask", "mask", "Take the hole from a picture, white = hole", () => openFile("hole"))), file,
    make("dl", { className: "ee-keys" }, ...KEYS.map(([key, what]) => make("div", {}, make("dt", { textContent: key }), make("dd", { textContent: what })))));
  const legend = make("span", { className: "ee-legend" }, ...["known", "predicted", "drawn", "erased", "hole", ...(truth.length ? ["true"] : [])].map((name) =>
    make("span", {}, make("i", { style: `background: rgb(${colours[name]})` }), name === "true" ? "true, missed" : name)));
  const status = make("output", { className: "ee-status" });
  const alert = make("div", { className: "ee-alert" });
  alert.setAttribute("role", "alert");
  const pane = (label) => {
    const canvas = make("canvas", { className: "ee-pane", tabIndex: 0 });
    canvas.setAttribute("aria-label", label);
    return canvas;
  };
  const stage = pane(`Edge map of ${w} by ${h} pixels. Arrow keys move, Space puts the pen down and up, B draws, E erases.`);
  stage.setAttribute("role", "application");
  const shown = paints && pane("Result. Left and right arrow keys move the divider between the photo and the result.");
  if (shown) shown.setAttribute("role", "slider");
  const panes = make("div", { className: "ee-panes" }, ...[stage, shown].filter(Boolean));
  el.classList.add("edge-editor");
  el.replaceChildren(bar, drawer, panes, make("div", { className: "ee-foot" }, legend, status), alert);
  const keep = (on) => { for (const node of el.querySelectorAll("button, canvas, input")) node.toggleAttribute("data-lm-suppress-shortcuts", on); };
  keep(true);  // or drawing keys would edit JupyterLab's cells: it looks at what has the focus first
  window.addEventListener("keydown", ({ ctrlKey, metaKey, key }) => keep(!((ctrlKey || metaKey) && /^s$/i.test(key))),
    { ...listen, capture: true });  // Ctrl+S is JupyterLab's

  // --- painting ---
  const layers = () => working ?? store.history.layers;
  // where the hole is newer than the prediction no edge is shown, least of all what was there
  const base = (mask, near, threshold = model.get("threshold")) => (k) => probability[k] >= threshold && (!near[k] || predicted[k]);
  const isEdge = () => {
    const { mask, touched } = store.history.layers, near = nearHole(mask, w, h), on = base(mask, near);
    return (k) => (near[k] && touched[k] ? touched[k] === DRAWN : on(k));
  };
  const takeForecast = () => {
    probability = bytes(model.get("_probability"));
    predicted = nearHole(unpackBits(model.get("_forecast_hole"), w * h), w, h);
  };
  takeForecast();
  function paintInk([left, top, right, bottom] = [0, 0, w - 1, h - 1]) {
    if (right < left || bottom < top) return;
    const { mask, touched } = layers(), near = nearHole(mask, w, h, working), on = base(mask, near);
    const image = inkContext.createImageData(right - left + 1, bottom - top + 1);
    for (let y = top, at = 0; y <= bottom; y++) for (let x = left; x <= right; x++, at += 4) {
      const k = y * w + x, act = near[k] ? touched[k] : UNTOUCHED;
      let colour = null, alpha = 255;
      if (act === DRAWN) colour = colours.drawn;
      else if (act === ERASED) [colour, alpha] = on(k) ? [colours.erased, 200] : [null, 0];
      else if (on(k)) colour = near[k] ? colours.predicted : colours.known;
      if (view.truth && truth[k] && !colour) [colour, alpha] = [colours.true, 230];
      if (!colour && mask[k]) [colour, alpha] = [colours.hole, 60];
      if (colour) image.data.set([...colour, alpha], at);
    }
    inkContext.putImageData(image, left, top);
  }
  function traceOutline() {
    const { mask } = layers(), at = (x, y) => x >= 0 && y >= 0 && x < w && y < h && mask[y * w + x];
    outline = new Path2D();
    for (let y = 0; y <= h; y++) for (let x = 0; x <= w; x++) {
      if (!at(x, y) !== !at(x - 1, y)) { outline.moveTo(x, y); outline.lineTo(x, y + 1); }
      if (!at(x, y) !== !at(x, y - 1)) { outline.moveTo(x, y); outline.lineTo(x + 1, y); }
    }
  }
  let due = 0;
  const draw = () => { due ||= requestAnimationFrame(() => { due = 0; paintStage(); if (shown) paintResult(); }); };
  function prepared(canvas) {
    const ratio = window.devicePixelRatio || 1, side = Math.round(view.pane * ratio), high = Math.round((view.pane * h * ratio) / w);
    if (canvas.width !== side || canvas.height !== high) Object.assign(canvas, { width: side, height: high });
    const context = canvas.getContext("2d"), scale = (side / w) * view.zoom;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, side, high);
    context.setTransform(scale, 0, 0, scale, -view.x * scale, -view.y * scale);
    context.imageSmoothingEnabled = false;
    return [context, 1 / scale, ratio];
  }
  function paintStage() {
    const [context, pixel, ratio] = prepared(stage);
    context.globalAlpha = view.opacity;
    context.drawImage(photo, 0, 0);
    context.globalAlpha = 1;
    context.drawImage(ink, 0, 0);
    const twice = (path) => [["#fff", 3], ["#000", 1]].forEach(([colour, width]) => {  // visible on any photo
      Object.assign(context, { strokeStyle: colour, lineWidth: width * ratio * pixel });
      context.stroke(path);
    });
    if (view.outline) {
      if (!outline) traceOutline();  // once a frame, however fast the pointer
      Object.assign(context, { strokeStyle: `rgb(${colours.hole})`, lineWidth: 1.5 * ratio * pixel });
      context.stroke(outline);
    }
    if (corners) {
      const line = new Path2D();
      [...corners, cursor].forEach(([x, y], i) => line[i ? "lineTo" : "moveTo"](x + 0.5, y + 0.5));
      twice(line);
    }
    if (cursorShown) {
      const ring = new Path2D();
      ring.arc(cursor[0] + 0.5, cursor[1] + 0.5, radiusNow() + 0.5, 0, 7);
      twice(ring);
    }
  }
  function paintResult() {
    const [context, pixel, ratio] = prepared(shown);
    context.drawImage(view.before || !result ? photo : result, 0, 0);
    const divider = view.divider * w;
    if (view.divider > 0 && result && !view.before) {
      context.drawImage(photo, 0, 0, divider, h, 0, 0, divider, h);
      context.fillStyle = "#fff";
      context.fillRect(divider - ratio * pixel, 0, 2 * ratio * pixel, h);
    }
    shown.setAttribute("aria-valuenow", Math.round(100 * view.divider));
    shown.setAttribute("aria-valuetext", `${Math.round(100 * view.divider)} % photo`);
  }

  // --- state of the controls ---
  const edgeTool = () => ["line", "polyline"].includes(view.tool) ? "pen" : view.tool;
  const radiusNow = () => view.radius[edgeTool()];
  function say() {
    const { history } = store, { mask } = history.layers, threshold = model.get("threshold"), on = isEdge();
    let count = 0;
    for (let k = 0; k < w * h; k++) if (mask[k] && on(k)) count++;
    status.textContent = `${count} edge pixels in the hole, ${history.position} stroke${history.position === 1 ? "" : "s"}` +
      (model.get("busy") ? ", painting" : "");
    panes.setAttribute("aria-busy", model.get("busy"));
    alert.textContent = localMessage || model.get("message");
    undo.disabled = !history.position;
    redo.disabled = history.position === history.strokes.length;
    for (const [name, node] of Object.entries(tools)) node.setAttribute("aria-pressed", view.tool === name);
    size.value = radiusNow();
    sizeSaid.textContent = `${2 * radiusNow() + 1} px`;
    size.setAttribute("aria-valuetext", sizeSaid.textContent);
    confidence.value = threshold;
    confidenceSaid.textContent = `p > ${(threshold / 256).toFixed(2)}`;
    opacity.value = view.opacity;
    drawer.querySelector("[data-act=outline]").checked = view.outline;
    proposalSaid.textContent = model.get("proposal") ? `${model.get("proposal")} of ${model.get("_proposals")}` : "predicted";
  }
  function refresh() { outline = null; paintInk(); say(); draw(); }
  function openDrawer(open) { drawer.hidden = !open; more.setAttribute("aria-expanded", open); }
  function choose(tool) { endCorners(false); view.tool = tool; say(); draw(); }
  function setRadius(value) { view.radius[edgeTool()] = Math.min(24, Math.max(0, value)); say(); draw(); }
  function tell(name, value) { model.set(name, value); model.save_changes(); }
  function propose(by) { const n = model.get("_proposals") + 1; if (n > 1) tell("proposal", (model.get("proposal") + by + n) % n); }
  function complain(text) { localMessage = text; say(); }

  // --- zoom ---
  function clampView() {
    view.x = Math.min(Math.max(view.x, 0), w - w / view.zoom);
    view.y = Math.min(Math.max(view.y, 0), h - h / view.zoom);
  }
  function zoomBy(factor, x = view.x + w / view.zoom / 2, y = view.y + h / view.zoom / 2) {
    const zoom = Math.min(16, Math.max(1, view.zoom * factor));
    view.x = x - ((x - view.x) * view.zoom) / zoom;
    view.y = y - ((y - view.y) * view.zoom) / zoom;
    view.zoom = zoom;
    clampView();
    draw();
  }
  function fit() { Object.assign(view, { zoom: 1, x: 0, y: 0 }); draw(); }
  function place(event) {  // in pixels of the picture, with fractions
    const box = stage.getBoundingClientRect(), scale = (box.width / w) * view.zoom;
    return [(event.clientX - box.left) / scale + view.x, (event.clientY - box.top) / scale + view.y];
  }
  const pixelAt = (event) => place(event).map(Math.floor);

  // --- strokes ---
  const reach = Math.max(w, h), near = (v) => Math.min(Math.max(v, -reach), 2 * reach);
  function pressed(event) {
    const full = radiusNow();
    return event.pointerType === "pen" && event.pressure ? Math.round(full * Math.min(2 * event.pressure, 1)) : full;
  }
  function begin(tool, point, radius) {
    const { mask, touched } = store.history.layers;
    working = { mask: mask.slice(), touched: touched.slice() };
    stroke = { tool, points: [], radius: [] };
    extend(point, radius);
  }
  function extend(point, radius) {
    point = point.map(near);
    const { points } = stroke, last = points.at(-1);
    if (last && last[0] === point[0] && last[1] === point[1] && radius <= stroke.radius.at(-1)) return;
    if (points.length >= MAX_POINTS) return;
    paintStep(working, stroke.tool, last, point, radius, w, h);
    points.push(point);
    stroke.radius.push(radius);
    const [a, b] = [last ?? point, point], side = radius + 1;
    paintInk([Math.max(0, Math.min(a[0], b[0]) - side), Math.max(0, Math.min(a[1], b[1]) - side),
      Math.min(w - 1, Math.max(a[0], b[0]) + side), Math.min(h - 1, Math.max(a[1], b[1]) + side)]);
    if (stroke.tool === "mask" || stroke.tool === "unmask") outline = null;
    draw();
  }
  function end(keep) {
    if (!stroke) return;
    const done = stroke;
    stroke = working = null;
    localMessage = "";
    if (new Set(done.radius).size === 1) done.radius = done.radius[0];
    if (keep) store.act("do", done); else refresh();
  }
  function endCorners(keep) {
    const done = corners;
    corners = null;
    if (keep && done?.length) store.act("do", { tool: "pen", points: done, radius: view.radius.pen });
    draw();
  }

  // --- pointers ---
  stage.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    stage.focus({ preventScroll: true });
    try { stage.setPointerCapture(event.pointerId); } catch { /* a made-up pointer of a test */ }
    pointers.set(event.pointerId, event);
    if (pointers.size === 2 && event.pointerType === "touch") {
      end(false);
      if (corners) corners = view.tool === "polyline" && corners.length > 1 ? corners.slice(0, -1) : null;
      pinch = spread();
      return;
    }
    if (pointers.size > 1) return;
    if (event.button === 1) { panning = place(event); return; }
    if (event.button !== 0 && event.button !== 5) return;
    end(true);  // what the keyboard began
    cursor = pixelAt(event);
    const tool = event.button === 5 ? "eraser" : view.tool;  // 5: the other end of a pen
    if (tool === "polyline") { corners = [...(corners ?? []), cursor.map(near)]; draw(); return; }
    if (tool === "line") { corners = [cursor.map(near)]; draw(); return; }
    begin(tool, cursor, pressed(event));
  }, listen);
  const spread = () => {
    const [a, b] = [...pointers.values()];
    const middle = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
    return { apart: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1, at: place(middle) };
  };
  stage.addEventListener("pointermove", (event) => {
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, event);
    if (pinch && pointers.size === 2) {
      const now = spread();
      view.x += pinch.at[0] - now.at[0];
      view.y += pinch.at[1] - now.at[1];
      zoomBy(now.apart / pinch.apart, ...pinch.at);
      pinch = { ...spread(), apart: now.apart };
      return;
    }
    if (panning) {
      const now = place(event);
      view.x += panning[0] - now[0];
      view.y += panning[1] - now[1];
      clampView();
      draw();
      return;
    }
    cursor = pixelAt(event);
    cursorShown = true;
    if (stroke && pointers.has(event.pointerId)) {
      const each = event.getCoalescedEvents?.() ?? [];
      for (const one of each.length ? each : [event]) extend(pixelAt(one), pressed(one));
    }
    draw();
  }, listen);
  const lift = (event) => {
    const known = pointers.delete(event.pointerId);
    if (pinch) { if (!pointers.size) pinch = null; return; }
    if (panning) { panning = null; return; }
    if (!known) return;
    if (corners && view.tool === "line") {
      corners.push(pixelAt(event).map(near));
      endCorners(event.type === "pointerup");
    } else end(event.type === "pointerup");
  };
  for (const type of ["pointerup", "pointercancel"]) stage.addEventListener(type, lift, listen);
  stage.addEventListener("pointerleave", () => { if (!stroke) { cursorShown = false; draw(); } }, listen);
  stage.addEventListener("dblclick", () => { if (corners) endCorners(true); }, listen);
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;  // the page scrolls
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 200), ...place(event));
  }, { ...listen, passive: false });

  // --- keys ---
  const held = (on) => { view.before = on; compare?.setAttribute("aria-pressed", on); draw(); };
  el.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase(), other = event.getModifierState("AltGraph"), command = !other && (event.ctrlKey || event.metaKey);
    if (event.target.matches("input") && /^(arrow|home|end|page| )/.test(key)) return;  // a slider's own
    const letters = { b: "pen", e: "eraser", m: "mask", n: "unmask", l: "line", p: "polyline" };
    if (command && key === "z") store.act(event.shiftKey ? "redo" : "undo");
    else if (command && key === "y") store.act("redo");
    else if (command || (event.altKey && !other)) return;  // save, copy, ... are not ours
    else if (letters[key]) choose(letters[key]);
    else if (key === "[" || key === "]") setRadius(radiusNow() + (key === "]" ? 1 : -1));
    else if (key === "," || key === ".") propose(key === "." ? 1 : -1);
    else if (key === "+" || key === "=") zoomBy(1.5);
    else if (key === "-") zoomBy(1 / 1.5);
    else if (key === "0") fit();
    else if (key === "c" && paints) held(true);
    else if (key === "escape" && (stroke || corners)) { end(false); endCorners(false); }
    else if (event.target === shown && (key === "arrowleft" || key === "arrowright")) {
      view.divider = Math.min(1, Math.max(0, view.divider + (key === "arrowright" ? 0.05 : -0.05)));
      draw();
    } else if (event.target === shown && (key === "home" || key === "end")) {
      view.divider = key === "end" ? 1 : 0;
      draw();
    } else if (event.target === stage && byHand(event, key)) { /* done */ }
    else return;  // Tab and all others go through
    event.preventDefault();
    event.stopPropagation();
  }, listen);
  function byHand(event, key) {  // drawing with the keyboard alone
    const move = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[key];
    if (move) {
      cursor = cursor.map((v, i) => Math.min([w, h][i] - 1, Math.max(0, v + move[i] * (event.shiftKey ? 8 : 1))));
      cursorShown = true;
      view.x = Math.min(Math.max(view.x, cursor[0] + 1 - w / view.zoom), cursor[0]);  // the view follows
      view.y = Math.min(Math.max(view.y, cursor[1] + 1 - h / view.zoom), cursor[1]);
      if (stroke) extend(cursor, radiusNow());
      draw();
    } else if (key === "enter" && corners) endCorners(true);
    else if (key === " ") {
      cursorShown = true;
      if (view.tool === "polyline" || view.tool === "line") {
        corners = [...(corners ?? []), cursor];
        if (view.tool === "line" && corners.length === 2) endCorners(true);
      } else if (stroke) end(true);
      else begin(view.tool, cursor, radiusNow());
      draw();
    } else return false;
    return true;
  }
  el.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "c") held(false); }, listen);
  stage.addEventListener("blur", () => { if (stroke && !pointers.size) end(true); if (view.before) held(false); }, listen);
  if (compare) {
    compare.addEventListener("pointerdown", () => held(true), listen);
    compare.addEventListener("click", (event) => { if (!event.detail) held(!view.before); }, listen);  // Enter or Space on it
    for (const type of ["pointerup", "pointerleave"]) compare.addEventListener(type, () => held(false), listen);
  }
  if (shown) {
    const slide = (event) => {
      const box = shown.getBoundingClientRect(), x = (event.clientX - box.left) / box.width;
      view.divider = Math.min(1, Math.max(0, (view.x + (x * w) / view.zoom) / w));
      draw();
    };
    shown.addEventListener("pointerdown", (event) => {
      try { shown.setPointerCapture(event.pointerId); } catch { /* as above */ }
      slide(event);
    }, listen);
    shown.addEventListener("pointermove", (event) => { if (event.buttons) slide(event); }, listen);
  }

  // --- files ---
  function savePng(what) {
    const { mask } = store.history.layers, edge = isEdge(), rgb = new Uint8Array(3 * w * h);
    if (what === "result" && !result) return complain("there is no result yet");
    for (let k = 0; k < w * h; k++) {
      rgb.fill((what === "mask" ? mask[k] : edge(k)) ? 255 : 0, 3 * k, 3 * k + 3);
    }
    (what === "result" ? result : pictureOf(rgb, w, h)).toBlob((blob) => {
      const link = make("a", { href: URL.createObjectURL(blob), download: `${what}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
  let opening = "edges";
  function openFile(tool) { opening = tool; file.value = ""; file.click(); }
  file.addEventListener("change", async () => {
    const chosen = file.files[0];
    if (!chosen) return;
    let picture;
    try { picture = await createImageBitmap(chosen); } catch { return complain(`${chosen.name} is no picture`); }
    if (picture.width !== w || picture.height !== h)
      return complain(`${chosen.name} is ${picture.width} x ${picture.height}; wanted ${w} x ${h}, as the photo`);
    const context = make("canvas", { width: w, height: h }).getContext("2d");
    context.drawImage(picture, 0, 0);
    const { data } = context.getImageData(0, 0, w, h), plane = new Uint8Array(w * h);
    for (let k = 0; k < w * h; k++) plane[k] = (data[4 * k] + data[4 * k + 1] + data[4 * k + 2]) / 3 >= 128 && data[4 * k + 3] >= 128 ? 1 : 0;
    localMessage = "";
    store.act("do", { tool: opening, bits: packBits(plane) });
  }, listen);

  // --- what comes from outside ---
  const takeResult = () => {
    const rgb = bytes(model.get("_result"));
    result = rgb.length ? pictureOf(rgb, w, h) : null;
    draw();
  };
  const heard = { "change:_probability": () => { takeForecast(); refresh(); }, "change:_result": takeResult,
    "change:threshold": refresh, "change:proposal": say, "change:message": say, "change:busy": say };
  for (const [name, act] of Object.entries(heard)) model.on(name, act);
  store.addEventListener("change", () => { if (!stroke) refresh(); }, listen);
  const fitPanes = () => {
    const room = el.clientWidth || 640, count = shown ? 2 : 1;
    view.pane = Math.max(160, Math.min(480, Math.floor((room - 12 * (count - 1) - 4) / (room < 360 ? 1 : count))));
    for (const node of panes.children) Object.assign(node.style, { width: `${view.pane}px`, height: `${Math.round((view.pane * h) / w)}px` });
    draw();
  };
  const watcher = new ResizeObserver(fitPanes);
  watcher.observe(el);
  fitPanes();
  takeResult();
  refresh();
  return () => {
    stop.abort();
    watcher.disconnect();
    if (due) cancelAnimationFrame(due);
    for (const [name, act] of Object.entries(heard)) model.off(name, act);
  };
}

export default { initialize, render };
