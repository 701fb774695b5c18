// The Annotate tab: sends clicks and keys to the server, and draws at once what does not need the server.
// gradio calls this with: element, trigger, props, watch. Every response replaces the HTML inside element.

const own = { mode: "point", outside: false, radius: 14, hidden: false, corner: null, drag: null, help: false, focus: null,
  at: null, unsent: null, timer: 0, outlining: false };

let tab = sessionStorage.getItem("ttd-annotate");
if (!tab) {
  tab = "tab-" + Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");
  sessionStorage.setItem("ttd-annotate", tab);
}

const board = () => element.querySelector(".ann");
const stage = () => element.querySelector(".ann-stage");
const zoom = zoomer(() => element.querySelector(".ttd-window"));
const reviewing = () => board()?.dataset.reviewing === "1";

function send(action) {
  if (own.timer) sendOutlines();
  board()?.classList.add("ann-busy");
  trigger("submit", { ...action, tab, item: Number(board()?.dataset.item ?? -1) });
}

// The pixel of the image under the mouse, counted from the first pixel's centre; with a margin of 0.5 up to the edges.
function spot(event, margin = 0) {
  const box = stage().getBoundingClientRect();
  const clamp = (value, most) => Math.min(Math.max(value, -margin), most + margin);
  const width = Number(stage().dataset.width), height = Number(stage().dataset.height);
  return {
    x: clamp(((event.clientX - box.left) / box.width) * width - 0.5, width - 1),
    y: clamp(((event.clientY - box.top) / box.height) * height - 0.5, height - 1),
  };
}

const inside = (event) => own.outside === event.shiftKey;

// The outlines of the active word: as they are changed here, else as the server gave them; null without any.
function outlines() {
  const drawn = element.querySelector(".ann-outline");
  if (!drawn) return null;
  return own.unsent ?? (drawn.shapes ??= JSON.parse(drawn.dataset.outlines));
}

function sendOutlines() {
  clearTimeout(own.timer);
  const shapes = own.unsent;
  own.timer = 0;
  own.unsent = null;
  if (!shapes) return;
  element.querySelector(".ann-outline").shapes = shapes;
  send({ do: "outline", outlines: shapes });
}

function drawOutlines() {
  const drawn = element.querySelector(".ann-outline"), shapes = outlines();
  const all = shapes?.flat() ?? [], corner = own.at && shapes?.[own.at[0]]?.[own.at[1]];
  if (!corner) own.at = null;
  const told = element.querySelector("[data-corner]");
  if (told) told.textContent = corner ? `corner ${all.indexOf(corner) + 1} of ${all.length}` : `${all.length} corners`;
  if (!drawn) return;
  const line = shapes.map((shape) => `M${shape.map((c) => c.join(" ")).join("L")}Z`).join("");
  const dots = all.map(([x, y]) => `M${x} ${y}h0`).join("");
  const path = (d, width, kind = "") => `<path d="${d}" class="${kind}" style="--width:${width}px"/>`;
  drawn.innerHTML = path(line, 4, "ann-under") + path(line, 2) + path(dots, 9, "ann-under") + path(dots, 6)
    + (corner ? path(`M${corner[0]} ${corner[1]}h0`, 17, "ann-under") + path(`M${corner[0]} ${corner[1]}h0`, 13, "ann-at") : "");
}

// Something about the outlines changed; it is sent when no other change follows soon, or with the next action.
function changed(shapes, at) {
  own.unsent = shapes;
  own.at = at;
  drawOutlines();
  clearTimeout(own.timer);
  own.timer = setTimeout(sendOutlines, 500);
}

function insertCorner([shape, index], place) {
  const shapes = outlines(), corners = shapes[shape], next = corners[(index + 1) % corners.length];
  corners.splice(index + 1, 0, place ?? corners[index].map((value, axis) => (value + next[axis]) / 2));
  changed(shapes, [shape, index + 1]);
}

// With less than three corners an outline goes as a whole.
function deleteCorner([shape, index]) {
  const shapes = outlines();
  shapes[shape].splice(index, 1);
  if (shapes[shape].length < 3) shapes.splice(shape, 1);
  changed(shapes, shapes[shape] ? [shape, index % shapes[shape].length] : null);
}

function stepCorner(step) {
  const places = outlines().flatMap((shape, s) => shape.map((_, i) => [s, i]));
  const here = own.at ? places.findIndex(([s, i]) => s === own.at[0] && i === own.at[1]) : step > 0 ? -1 : 0;
  own.at = places.at((here + step) % places.length) ?? null;
  drawOutlines();
}

function moveCorner([shape, index], x, y) {
  const shapes = outlines(), { width, height } = stage().dataset;
  const clamp = (value, side) => Math.min(Math.max(value, -0.5), Number(side) - 0.5);
  shapes[shape][index] = [clamp(x, width), clamp(y, height)];
  changed(shapes, [shape, index]);
}

// What of the outlines is near the pointer: a corner, else the line after a corner.
function nearOutline(event) {
  const here = spot(event, 0.5), shapes = outlines();
  const size = stage().getBoundingClientRect().width / Number(stage().dataset.width);
  let best = { away: event.pointerType === "touch" ? 22 : 10, at: null };
  const measure = (x, y, at, line) => {
    const away = size * Math.hypot(x - here.x, y - here.y);
    if (away < best.away) best = { away, at, line };
  };
  shapes.forEach((shape, s) => shape.forEach(([x, y], i) => measure(x, y, [s, i], false)));
  if (best.at) return best;
  shapes.forEach((shape, s) => shape.forEach(([x, y], i) => {
    const [nextX, nextY] = shape[(i + 1) % shape.length], along = [nextX - x, nextY - y];
    const share = ((here.x - x) * along[0] + (here.y - y) * along[1]) / (along[0] ** 2 + along[1] ** 2 || 1);
    const inside = Math.min(Math.max(share, 0), 1);
    measure(x + inside * along[0], y + inside * along[1], [s, i], true);
  }));
  return best;
}

function grabOutline(event) {
  const { at, line } = nearOutline(event), here = spot(event, 0.5);
  if (at && line) insertCorner(at, [here.x, here.y]);
  else if (at && event.shiftKey) return deleteCorner(at);
  else own.at = at;
  drawOutlines();
  if (own.at) own.drag = { outline: own.at, x: event.clientX, y: event.clientY, dragged: false };
}

// State of the browser alone, drawn again after every response.
function redraw() {
  const ann = board();
  if (!ann) return;
  ann.classList.remove("ann-busy");
  ann.classList.toggle("ann-hidden", own.hidden);
  if (own.mode === "outline" && !outlines()) own.mode = "point";
  ann.dataset.mode = own.mode;
  for (const button of ann.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === own.mode));
  }
  ann.querySelector("[data-switch=outside]")?.setAttribute("aria-pressed", String(own.outside));
  element.querySelector(".ann-rubber")?.remove();
  if (own.mode !== "brush") element.querySelector(".ann-cursor")?.remove();
  const help = ann.querySelector(".ann-help");
  if (help) help.hidden = !own.help;
  const brush = ann.querySelector("[data-brush]");
  if (brush) brush.textContent = `${Math.round(2 * own.radius)} px`;
  drawOutlines();
  zoom.apply();
}

// The brush as a circle under the pointer, in pixels of the screen.
function cursor(event) {
  const area = element.querySelector(".ttd-window");
  if (own.mode !== "brush" || reviewing() || !area) return;
  const box = area.getBoundingClientRect();
  let mark = area.querySelector(".ann-cursor");
  if (!mark) {
    mark = document.createElement("i");
    mark.className = "ann-cursor";
    area.appendChild(mark);
  }
  own.pointer = event;
  Object.assign(mark.style, {
    left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px`,
    width: `${2 * own.radius}px`, height: `${2 * own.radius}px`,
  });
}

function rubber(from, to) {
  const area = stage();
  let box = area.querySelector(".ann-rubber");
  if (!box) {
    box = document.createElement("i");
    box.className = "ann-box ann-rubber";
    area.appendChild(box);
  }
  const width = Number(area.dataset.width), height = Number(area.dataset.height);
  box.style.left = `${(100 * Math.min(from.x, to.x)) / width}%`;
  box.style.top = `${(100 * Math.min(from.y, to.y)) / height}%`;
  box.style.width = `${(100 * (Math.abs(from.x - to.x) + 1)) / width}%`;
  box.style.height = `${(100 * (Math.abs(from.y - to.y) + 1)) / height}%`;
}

function dab(event, drag) {
  const here = spot(event), last = drag.spots[drag.spots.length - 1];
  if (last && Math.hypot(here.x - last[0], here.y - last[1]) < drag.radius / 2) return;
  if (drag.spots.length >= 2000) return;
  drag.spots.push([here.x, here.y]);
  const mark = document.createElement("i");
  mark.className = drag.inside ? "ann-dab" : "ann-dab ann-erase";
  const area = stage(), width = Number(area.dataset.width), height = Number(area.dataset.height);
  mark.style.left = `${(100 * (here.x + 0.5)) / width}%`;
  mark.style.top = `${(100 * (here.y + 0.5)) / height}%`;
  mark.style.width = `${(200 * drag.radius) / width}%`;
  area.appendChild(mark);
}

function cancel() {
  own.drag = own.corner = null;
  for (const mark of element.querySelectorAll(".ann-dab, .ann-rubber")) mark.remove();
}

element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".ttd-window")) return;
  if (zoom.down(event)) return cancel();
  if (event.button === 1) {
    event.preventDefault();
    own.pan = true;
  }
  if (event.button !== 0 || reviewing() || !event.target.closest(".ann-stage")) return;
  event.preventDefault();
  document.activeElement?.blur?.();
  if (own.mode === "outline") return grabOutline(event);
  const from = spot(event);
  const scale = Number(stage().dataset.width) / stage().getBoundingClientRect().width;
  own.drag = { from, x: event.clientX, y: event.clientY, dragged: false, inside: inside(event) };
  if (own.mode === "brush") {
    Object.assign(own.drag, { spots: [], radius: own.radius * scale });
    dab(event, own.drag);
  }
});

document.addEventListener("pointermove", (event) => {
  if (!stage()) return;
  if (zoom.moved(event)) return;
  if (own.pan) return zoom.move(event.movementX, event.movementY);
  cursor(event);
  const drag = own.drag;
  if (drag?.spots) return dab(event, drag);
  if (drag?.outline) {
    drag.dragged ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > TAP / 2;
    const { x, y } = spot(event, 0.5);
    if (drag.dragged) moveCorner(drag.outline, x, y);
    return;
  }
  if (drag) {
    drag.dragged ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > TAP;
    if (drag.dragged) rubber(drag.from, spot(event));
  } else if (own.corner) {
    rubber(own.corner, spot(event));
  }
});

element.addEventListener("wheel", (event) => {
  if (!event.target.closest(".ttd-window")) return;
  event.preventDefault();
  zoom.by(Math.exp(-event.deltaY / 300), event);
}, { passive: false });

document.addEventListener("pointercancel", (event) => { zoom.up(event); cancel(); });
document.addEventListener("pointerup", (event) => {
  zoom.up(event);
  own.pan = false;
  const drag = own.drag;
  own.drag = null;
  if (!drag || !stage()) return;
  if (drag.outline) return sendOutlines();
  const to = spot(event);
  if (drag.spots) {
    send({ do: "stroke", spots: drag.spots, radius: drag.radius, inside: drag.inside });
  } else if (drag.dragged) {
    own.corner = null;
    send({ do: "box", x: drag.from.x, y: drag.from.y, x2: to.x, y2: to.y });
  } else if (own.mode === "box" && !own.corner) {
    own.corner = drag.from;
    rubber(drag.from, drag.from);
  } else if (own.mode === "box") {
    const corner = own.corner;
    own.corner = null;
    send({ do: "box", x: corner.x, y: corner.y, x2: drag.from.x, y2: drag.from.y });
  } else {
    send({ do: "point", x: drag.from.x, y: drag.from.y, inside: drag.inside });
  }
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  const { mode, switch: name, do: what, word, index } = button.dataset;
  // Pressed with a key, it keeps the focus, also over the answer; otherwise Enter and the space bar would press it again.
  if (event.detail) button.blur();
  own.focus = event.detail ? null : what === "press" ? `[data-word="${CSS.escape(word)}"]` : null;
  if (LOCAL[what]) LOCAL[what]();
  else if (mode) setMode(mode);
  else if (name) own.outside = !own.outside;
  else if (what === "press") send({ do: what, word });
  else if (what === "choose") send({ do: what, index: Number(index) });
  else if (what === "caption") sendCaption();
  else if (what) send({ do: what });
  if (mode || name) redraw();
});

function sendCaption() {
  send({ do: "caption", text: element.querySelector(".ann-typed input").value });
}
element.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || !event.target.closest(".ann-typed input")) return;
  event.preventDefault();
  event.target.blur(); // so that the next key is a command again
  sendCaption();
});

element.addEventListener("input", (event) => {
  if (event.target.dataset.do !== "threshold") return;
  event.target.parentElement.querySelector("output").textContent = Number(event.target.value).toFixed(2);
});
element.addEventListener("change", (event) => {
  if (event.target.dataset.do === "threshold") send({ do: "threshold", value: Number(event.target.value) });
});

function setMode(mode) {
  own.corner = null;
  own.outlining = mode === "outline" && !outlines();
  if (own.outlining) send({ do: "outline" });
  else own.mode = mode;
}

const resize = (factor) => {
  own.radius = Math.min(Math.max(own.radius * factor, 2), 200);
  redraw();
  if (own.pointer) cursor(own.pointer);
};
const help = (on) => { own.help = on; redraw(); if (on) element.querySelector(".ann-help button")?.focus(); };
// What needs no server.
const LOCAL = {
  in: () => zoom.by(1.4), out: () => zoom.by(1 / 1.4), fit: zoom.reset, help: () => help(!own.help),
  thinner: () => resize(1 / 1.3), thicker: () => resize(1.3),
  before: () => stepCorner(-1), after: () => stepCorner(1), insert: () => own.at && insertCorner(own.at),
  delete: () => own.at && deleteCorner(own.at),
};
function nextWord() {
  const words = [...element.querySelectorAll(".ann-caption button")];
  words[(words.indexOf(document.activeElement) + 1) % words.length]?.focus();
}

const sending = (action) => () => send(action);
const showing = (change) => () => { change(); redraw(); };
const ANNOTATE = {
  a: sending({ do: "accept" }), s: sending({ do: "skip" }), n: sending({ do: "next" }), p: sending({ do: "previous" }),
  u: sending({ do: "undo" }), x: sending({ do: "drop" }), c: sending({ do: "clear" }), r: sending({ do: "again" }),
  arrowright: sending({ do: "word" }), arrowleft: sending({ do: "word", back: true }),
  e: showing(() => setMode("outline")), d: showing(() => setMode("point")), b: showing(() => setMode("box")), f: showing(() => setMode("brush")),
  o: showing(() => { own.outside = !own.outside; }), escape: showing(() => { own.corner = own.drag = own.at = null; }),
  "[": LOCAL.thinner, "]": LOCAL.thicker, w: nextWord,
};
const nudge = (x, y) => () => {
  const [atX, atY] = outlines()[own.at[0]][own.at[1]];
  moveCorner(own.at, atX + x, atY + y);
};
const OUTLINE = { ",": LOCAL.before, ".": LOCAL.after };
const CORNER = {
  i: LOCAL.insert, insert: LOCAL.insert, delete: LOCAL.delete, backspace: LOCAL.delete,
  arrowleft: nudge(-1, 0), arrowright: nudge(1, 0), arrowup: nudge(0, -1), arrowdown: nudge(0, 1),
};
const REVIEW = {
  k: sending({ do: "keep" }), u: sending({ do: "undo" }), x: sending({ do: "reject" }), p: sending({ do: "back" }), e: sending({ do: "edit" }),
};
const BOTH = {
  h: showing(() => { own.hidden = !own.hidden; }), "?": LOCAL.help, "+": LOCAL.in, "=": LOCAL.in, "-": LOCAL.out,
  0: LOCAL.fit,
};
const PAN = { arrowleft: [60, 0], arrowright: [-60, 0], arrowup: [0, 60], arrowdown: [0, -60] };

function onKey(event) {
  if (!element.isConnected) return document.removeEventListener("keydown", onKey);
  if (!board() || board().offsetParent === null || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input:not([type=range]), textarea, select, [contenteditable=true]")) return;
  const key = event.key.toLowerCase();
  if (own.help && key === "escape") return help(false);
  if (event.shiftKey && PAN[key]) {
    event.preventDefault();
    return zoom.move(...PAN[key]);
  }
  let act = BOTH[key] ?? (reviewing() ? REVIEW : ANNOTATE)[key];
  if (!reviewing() && /^[1-9]$/.test(key)) act = sending({ do: "choose", index: Number(key) - 1 });
  const corner = own.mode === "outline" && !reviewing() ? OUTLINE[key] ?? (own.at ? CORNER[key] : null) : null;
  act = corner ?? act;
  if (!act || (event.repeat && !corner && !["+", "=", "-", "[", "]", "u"].includes(key))) return;
  event.preventDefault();
  act();
}
document.addEventListener("keydown", onKey);

let item = null, active = null;
watch("value", () => {
  const word = element.querySelector(".ann-list .ann-active b")?.textContent;
  if (word !== active) own.at = own.unsent = null;
  active = word;
  if (board()?.dataset.item !== item) {
    item = board()?.dataset.item;
    sessionStorage.setItem("ttd-annotate-item", item);
    own.corner = own.drag = own.at = own.unsent = null;
    zoom.reset();
  }
  if (own.outlining) own.mode = "outline";
  own.outlining = false;
  redraw();
  if (own.focus) element.querySelector(`.ann-caption ${own.focus}`)?.focus();
  own.focus = null;
});

// When the server comes back gradio loads the page again: the tab resumes where it stopped.
const left = Number(sessionStorage.getItem("ttd-annotate-item") ?? -1);
setTimeout(() => trigger("submit", { do: "open", tab, item: left }), 0);
