// The canvas of the Explore tab: the image, and over it the map of the word that is pointed at. All maps came with the
// answer (viewer.py), so nothing here asks the server. gradio calls this with: element, trigger, props, watch; every
// answer replaces the HTML inside element.

const own = { layer: null, preview: null, opacity: 0.6, split: 0.5, spot: null, words: "", image: "" };
let drawn = {}; // layer -> canvas, made when first shown
let grey = null, number = 0;

const view = () => element.querySelector(".ttd-view");
const pane = () => element.querySelector(".ttd-window");
const zoom = zoomer(pane);
const masks = () => document.querySelector("#ttd-layers .ttd-layers-data");
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const read = (node) => JSON.parse(node?.dataset.view ?? "null");
const source = (name) =>
  view()?.querySelector(`img[data-source="${name}"]`) ?? masks()?.querySelector(`img[data-source="${name}"]`);

// A layer's pixels in colour: of a map by the colour scale, of labels by their class.
async function layer(name) {
  if (drawn[name]) return drawn[name];
  let width, height, colour;
  if (name === "best") {
    const { rows, columns, words, values, colours } = read(view()).grid;
    const grid = new Uint16Array(bytes(values).buffer), best = new Uint16Array(rows * columns);
    for (let n = 1; n < words; n++) {
      for (let i = 0; i < best.length; i++) {
        if (grid[n * best.length + i] > grid[best[i] * best.length + i]) best[i] = n;
      }
    }
    [width, height] = [columns, rows];
    colour = (i) => [...colours[best[i]], 255];
  } else {
    const image = source(name);
    if (!image) return null;
    await image.decode();
    [width, height] = [image.naturalWidth, image.naturalHeight];
    const board = new OffscreenCanvas(width, height).getContext("2d");
    board.drawImage(image, 0, 0);
    const values = board.getImageData(0, 0, width, height).data;
    if (name === "segments") {
      const { colours } = read(masks());
      colour = (i) => (colours[values[4 * i]] ? [...colours[values[4 * i]], 255] : [0, 0, 0, 0]);
    } else if (name === "mask") {
      colour = (i) => (values[4 * i] ? [0, 0, 0, 0] : [0, 0, 0, 255]);
    } else {
      const scale = bytes(read(view()).scale);
      colour = (i) => [...scale.subarray(3 * values[4 * i], 3 * values[4 * i] + 3), 255];
    }
  }
  const board = new OffscreenCanvas(width, height), pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) pixels.data.set(colour(i), 4 * i);
  board.getContext("2d").putImageData(pixels, 0, 0);
  return (drawn[name] = board);
}

async function draw() {
  const canvas = element.querySelector("canvas"), image = source("image"), mine = ++number;
  if (!canvas || !image) return;
  const shown = own.preview ?? own.layer;
  await image.decode();
  const parts = shown === "both" ? [await layer("before"), await layer("caption")] : [await layer(shown)];
  if (mine !== number || !canvas.isConnected) return;
  const { width, height } = canvas, board = canvas.getContext("2d");
  if (!grey) {
    grey = new OffscreenCanvas(width, height);
    const under = grey.getContext("2d");
    under.drawImage(image, 0, 0, width, height);
    const pixels = under.getImageData(0, 0, width, height), all = pixels.data;
    for (let i = 0; i < all.length; i += 4) {
      all[i] = all[i + 1] = all[i + 2] = 0.299 * all[i] + 0.587 * all[i + 1] + 0.114 * all[i + 2];
    }
    under.putImageData(pixels, 0, 0);
  }
  const coloured = shown === "image" || shown === "segments" || shown === "mask" || !parts[0];
  board.drawImage(coloured ? image : grey, 0, 0, width, height);
  board.globalAlpha = own.opacity;
  board.imageSmoothingEnabled = !["best", "segments", "mask"].includes(shown);
  const left = Math.round(own.split * width);
  parts.forEach((part, index) => {
    if (!part) return;
    board.save();
    if (parts.length === 2) {
      board.beginPath();
      board.rect(index ? left : 0, 0, index ? width - left : left, height);
      board.clip();
    }
    board.drawImage(part, 0, 0, width, height);
    board.restore();
  });
  board.globalAlpha = 1;
  board.imageSmoothingEnabled = true;
  if (parts.length === 2) {
    board.fillStyle = "#ffffff";
    board.fillRect(left - 2, 0, 4, height);
  }
  describe(shown);
}

// What stands around the canvas: which layer is on, what its colours mean, names on regions, the words at a place.
function describe(shown) {
  const data = read(view()), labels = read(masks());
  const name = element.querySelector(`[data-layer="${shown}"]`)?.dataset.name ?? "";
  element.querySelector("canvas").setAttribute("aria-label", `The image with this layer: ${name}`);
  for (const button of element.querySelectorAll("[data-layer]")) {
    button.setAttribute("aria-pressed", String(button.dataset.layer === own.layer));
  }
  const isMap = /^(w\d+|caption|both)$/.test(shown);
  element.querySelector("[data-part=shown]").textContent = name;
  element.querySelector("[data-part=bar]").hidden = !isMap;
  element.querySelector("[data-part=split]").hidden = shown !== "both";
  element.querySelector("[data-layer=both]").hidden = !source("before");
  element.querySelector(".ttd-signs").replaceChildren(
    ...(shown === "segments" ? labels?.signs ?? [] : []).map(({ name, x, y, colour }) => {
      const sign = document.createElement("span");
      sign.className = "ttd-sign";
      sign.textContent = name;
      Object.assign(sign.style, { left: `${100 * x}%`, top: `${100 * y}%`, borderColor: colour });
      return sign;
    }),
  );
  const mark = element.querySelector(".ttd-spot");
  mark.hidden = !own.spot;
  if (own.spot) Object.assign(mark.style, { left: `${100 * own.spot.x}%`, top: `${100 * own.spot.y}%` });
  const list = element.querySelector("[data-part=here]");
  list.hidden = !own.spot;
  if (!own.spot || list.dataset.spot === `${own.spot.x},${own.spot.y}`) return;
  list.dataset.spot = `${own.spot.x},${own.spot.y}`;
  list.replaceChildren("Most similar here: ", ...nearest(data).map(({ text, value, index }) => {
    const word = document.createElement(element.querySelector(`[data-layer=w${index}]`) ? "button" : "span");
    word.textContent = `${text} ${value.toFixed(3)}`;
    word.className = "ttd-near";
    if (word.tagName === "BUTTON") word.dataset.choose = `w${index}`;
    return word;
  }));
}

function nearest({ grid, words }) {
  const values = new Uint16Array(bytes(grid.values).buffer), step = grid.rows * grid.columns;
  const row = Math.min(grid.rows - 1, Math.floor(own.spot.y * grid.rows));
  const column = Math.min(grid.columns - 1, Math.floor(own.spot.x * grid.columns));
  return words
    .map((text, index) => {
      const level = values[index * step + row * grid.columns + column] / 65535;
      return { text, index, value: grid.low + level * (grid.high - grid.low) };
    })
    .sort((a, b) => b.value - a.value)
    .slice(0, 5);
}

function choose(name) {
  own.layer = name;
  own.preview = null;
  draw();
}

function place(event) {
  const box = element.querySelector("canvas").getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  own.spot = x >= 0 && x < 1 && y >= 0 && y < 1 ? { x, y } : null;
  draw();
}

function full(on) {
  element.classList.toggle("ttd-full", on);
  element.querySelector("[data-do=full]").setAttribute("aria-pressed", String(on));
  if (on) element.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) document.exitFullscreen();
  requestAnimationFrame(zoom.apply);
}
document.addEventListener("fullscreenchange", () => { if (!document.fullscreenElement && view()) full(false); });

const ACTIONS = {
  in: () => zoom.by(1.4), out: () => zoom.by(1 / 1.4), fit: zoom.reset,
  full: () => full(!element.classList.contains("ttd-full")),
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.layer) choose(button.dataset.layer);
  else if (button.dataset.choose) choose(button.dataset.choose);
  else ACTIONS[button.dataset.do]?.();
});
for (const [kind, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
  element.addEventListener(kind, (event) => {
    const button = event.target.closest?.("button[data-layer]");
    if (!button) return;
    own.preview = on ? button.dataset.layer : null;
    draw();
  });
}
element.addEventListener("input", (event) => {
  const field = event.target.dataset.field;
  if (!field) return;
  own[field] = Number(event.target.value);
  draw();
});

let press = null;
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".ttd-window") || event.button) return;
  press = zoom.down(event) ? null : { x: event.clientX, y: event.clientY, moved: false };
});
document.addEventListener("pointermove", (event) => {
  if (zoom.moved(event)) press = null;
  if (!press) return;
  press.moved ||= Math.hypot(event.clientX - press.x, event.clientY - press.y) > TAP;
  if (press.moved) zoom.move(event.movementX, event.movementY);
});
for (const kind of ["pointerup", "pointercancel"]) {
  document.addEventListener(kind, (event) => {
    zoom.up(event);
    if (press && !press.moved && kind === "pointerup") place(event);
    press = null;
  });
}
element.addEventListener("wheel", (event) => {
  // The page scrolls as usual: the wheel zooms with Ctrl (which is also a pinch on a touchpad), or in full screen.
  if (!event.target.closest(".ttd-window") || !(event.ctrlKey || element.classList.contains("ttd-full"))) return;
  event.preventDefault();
  zoom.by(Math.exp(-event.deltaY / 300), event);
}, { passive: false });

const KEYS = {
  "+": ACTIONS.in, "=": ACTIONS.in, "-": ACTIONS.out, 0: ACTIONS.fit, f: ACTIONS.full,
  ArrowLeft: () => zoom.move(60, 0), ArrowRight: () => zoom.move(-60, 0),
  ArrowUp: () => zoom.move(0, 60), ArrowDown: () => zoom.move(0, -60),
  Enter: () => {
    const box = pane().getBoundingClientRect();
    place({ clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 });
  },
};
element.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && element.classList.contains("ttd-full")) return full(false);
  if (event.ctrlKey || event.metaKey || event.altKey || !event.target.classList.contains("ttd-window")) return;
  const act = KEYS[event.key];
  if (!act || (event.key.startsWith("Arrow") && zoom.at.scale === 1)) return;
  event.preventDefault();
  act();
});

function renewed() {
  const data = read(view());
  drawn = {};
  grey = null;
  if (!data) return;
  if (source("image").src !== own.image) {
    zoom.reset();
    own.spot = null;
  }
  own.image = source("image").src;
  if (!element.querySelector(`[data-layer="${own.layer}"]`) || data.words.join("\n") !== own.words) own.layer = data.first;
  own.words = data.words.join("\n");
  for (const field of element.querySelectorAll("[data-field]")) field.value = own[field.dataset.field];
  zoom.apply();
  draw();
}
watch("value", renewed);
renewed();
// The threshold gives new layers without new words.
document.addEventListener("ttd-layers", () => {
  for (const name of ["caption", "before", "mask", "segments"]) delete drawn[name];
  if (!source("before") && own.layer === "both") own.layer = "caption";
  draw();
});

// A busy state at once, until an answer is there; on a narrow window the result comes into view.
const busy = (on) => {
  document.body.classList.toggle("ttd-busy", on);
  if (on && matchMedia("(max-width: 800px)").matches) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.querySelector("#ttd-result").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
};
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#ttd-go, #ttd-examples button")) busy(true);
}, true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && event.target.closest?.("#ttd-caption")) busy(true);
}, true);
document.addEventListener("change", (event) => {
  if (event.target.closest?.("#ttd-image input[type=file]")) busy(true);
}, true);
document.addEventListener("ttd-answer", () => busy(false));
