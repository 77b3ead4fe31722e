// CropTool's front end: two handles on the eyes, and beside them what the networks will see.

const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
const NAMES = ["Left eye in the picture", "Right eye in the picture"];
const [SHOWN, CROP, REACH] = [480, 256, 9];  // px on the page: the photo's longer side, the crop, a handle's radius

/** The similarity [a, b, e, f] for canvas.setTransform(a, b, -b, a, e, f) that takes the eyes to where they are wanted. */
export function similarity([[ax, ay], [bx, by]], [[cx, cy], [dx, dy]]) {
  const x = bx - ax, y = by - ay, u = dx - cx, v = dy - cy, square = x * x + y * y;
  const a = (u * x + v * y) / square, b = (v * x - u * y) / square;
  return [a, b, cx - a * ax + b * ay, cy - b * ax - a * ay];
}

function render({ model, el }) {
  const stop = new AbortController(), listen = { signal: stop.signal };
  const [h, w] = model.get("_shape"), [th, tw] = model.get("_thumbnail_shape"), scale = SHOWN / Math.max(w, h);
  const photo = make("canvas", { width: tw, height: th }), view = model.get("_thumbnail");
  const rgb = new Uint8Array(view.buffer, view.byteOffset, view.byteLength), image = photo.getContext("2d").createImageData(tw, th);
  for (let k = 0; k < tw * th; k++) image.data.set([rgb[3 * k], rgb[3 * k + 1], rgb[3 * k + 2], 255], 4 * k);
  photo.getContext("2d").putImageData(image, 0, 0);
  const ratio = window.devicePixelRatio || 1;
  const pane = (width, height, label) => {
    const node = make("canvas", { className: "ee-pane", width: width * ratio, height: height * ratio });
    Object.assign(node.style, { width: `${width}px`, height: `${height}px` });
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", label);
    return node;
  };
  const stage = pane(Math.round(w * scale), Math.round(h * scale), "The photo, with a handle on each eye");
  const crop = pane(CROP, CROP, "The crop that the networks are given");
  const handles = NAMES.map((name) => {
    const node = make("button", { type: "button", className: "ee-handle", title: `${name}: drag, or arrow keys` });
    node.setAttribute("aria-label", `${name}. Arrow keys move it, Shift by 10 px.`);
    return node;
  });
  const frame = make("div", { className: "ee-frame" }, stage, ...handles);
  const keep = (on) => handles.forEach((node) => node.toggleAttribute("data-lm-suppress-shortcuts", on));
  keep(true);
  window.addEventListener("keydown", ({ ctrlKey, metaKey, key }) => keep(!((ctrlKey || metaKey) && /^s$/i.test(key))), { ...listen, capture: true });
  const alert = make("div", { className: "ee-alert" });
  alert.setAttribute("role", "alert");
  el.classList.add("edge-editor");
  el.replaceChildren(make("div", { className: "ee-panes" }, frame, crop),
    make("div", { className: "ee-foot", textContent: "Drag the rings onto the eyes. Right: what the networks will see; the eyes belong on the crosses." }), alert);

  let eyes = model.get("_eyes").map((eye) => [...eye]);
  function draw() {
    const big = stage.getContext("2d"), small = crop.getContext("2d");
    big.setTransform(scale * ratio * (w / tw), 0, 0, scale * ratio * (h / th), 0, 0);
    big.drawImage(photo, 0, 0);
    const side = CROP * ratio, wanted = model.get("_eyes_at").map(([x, y]) => [x * side, y * side]);
    const [a, b, e, f] = similarity([...eyes].sort(([x], [y]) => x - y), wanted);
    small.setTransform(1, 0, 0, 1, 0, 0);
    small.fillStyle = "#888";
    small.fillRect(0, 0, side, side);
    small.setTransform(a, b, -b, a, e, f);
    small.drawImage(photo, 0, 0, w, h);
    small.setTransform(1, 0, 0, 1, 0, 0);
    for (const [colour, width] of [["#000", 3], ["#fff", 1]]) {
      Object.assign(small, { strokeStyle: colour, lineWidth: width * ratio });
      small.beginPath();
      for (const [x, y] of wanted)
        for (const [dx, dy] of [[6, 0], [0, 6]]) { small.moveTo(x - dx * ratio, y - dy * ratio); small.lineTo(x + dx * ratio, y + dy * ratio); }
      small.stroke();
    }
    handles.forEach((node, i) => Object.assign(node.style, { left: `${eyes[i][0] * scale - REACH}px`, top: `${eyes[i][1] * scale - REACH}px` }));
    alert.textContent = model.get("message");
  }
  const tell = () => { model.set("_eyes", eyes.map((eye) => [...eye])); model.save_changes(); };
  function move(i, x, y) {
    const next = eyes.map((eye) => [...eye]);
    next[i] = [Math.min(w, Math.max(0, x)), Math.min(h, Math.max(0, y))];
    if (Math.hypot(next[0][0] - next[1][0], next[0][1] - next[1][1]) < 3) return;
    eyes = next;
    draw();
  }
  handles.forEach((node, i) => {
    let held = null;
    node.addEventListener("pointerdown", (event) => {
      try { node.setPointerCapture(event.pointerId); } catch { /* a made-up pointer of a test */ }
      held = [event.clientX - eyes[i][0] * scale, event.clientY - eyes[i][1] * scale];
    }, listen);
    node.addEventListener("pointermove", (event) => { if (held) move(i, (event.clientX - held[0]) / scale, (event.clientY - held[1]) / scale); }, listen);
    for (const type of ["pointerup", "pointercancel"]) node.addEventListener(type, () => { if (held) tell(); held = null; }, listen);
    node.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!by) return;
      const far = event.shiftKey ? 10 : 1;
      move(i, eyes[i][0] + far * by[0], eyes[i][1] + far * by[1]);
      tell();
      event.preventDefault();
      event.stopPropagation();
    }, listen);
  });
  const heard = { "change:_eyes": () => { eyes = model.get("_eyes").map((eye) => [...eye]); draw(); }, "change:message": draw };
  for (const [name, act] of Object.entries(heard)) model.on(name, act);
  draw();
  return () => { stop.abort(); for (const [name, act] of Object.entries(heard)) model.off(name, act); };
}

export default { render };
