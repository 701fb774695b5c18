// Zoom and pan, of Explore and of Annotate: `.ttd-zoomed` inside the `.ttd-window` that `find()` gives.
// A point of the content at (u, v) from the window's centre is drawn at (x + scale u, y + scale v).

const MOST_ZOOM = 12;
const TAP = 6; // pixels of the screen up to which a press is no drag

function zoomer(find) {
  const at = { scale: 1, x: 0, y: 0 };
  const fingers = new Map();
  const inner = () => find()?.querySelector(".ttd-zoomed");

  function apply() {
    const content = inner();
    if (!content) return;
    for (const [axis, size] of [["x", content.offsetWidth], ["y", content.offsetHeight]]) {
      const most = ((at.scale - 1) * size) / 2;
      at[axis] = Math.min(Math.max(at[axis], -most), most);
    }
    content.style.transform = `translate(${at.x}px, ${at.y}px) scale(${at.scale})`;
    content.style.setProperty("--zoom", at.scale);
    find().classList.toggle("ttd-is-zoomed", at.scale > 1);
    const shown = find().parentElement.querySelector("[data-zoom-value]");
    if (shown) shown.textContent = `${Math.round(100 * at.scale)} %`;
  }
  function by(factor, event) {
    const box = find().getBoundingClientRect();
    const u = event ? event.clientX - box.left - box.width / 2 : 0, v = event ? event.clientY - box.top - box.height / 2 : 0;
    const scale = Math.min(Math.max(at.scale * factor, 1), MOST_ZOOM);
    at.x = u - ((u - at.x) * scale) / at.scale;
    at.y = v - ((v - at.y) * scale) / at.scale;
    at.scale = scale;
    apply();
  }
  function move(x, y) { at.x += x; at.y += y; apply(); }
  function reset() { Object.assign(at, { scale: 1, x: 0, y: 0 }); apply(); }

  // Two fingers zoom and pan; true while they do, so that what one finger does is left out.
  function down(event) {
    if (event.pointerType === "touch") fingers.set(event.pointerId, event);
    return fingers.size > 1;
  }
  function moved(event) {
    if (!fingers.has(event.pointerId)) return false;
    const before = [...fingers.values()];
    fingers.set(event.pointerId, event);
    if (fingers.size !== 2) return fingers.size > 1;
    const now = [...fingers.values()];
    const middle = ([a, b]) => ({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
    const apart = ([a, b]) => Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY));
    move(middle(now).clientX - middle(before).clientX, middle(now).clientY - middle(before).clientY);
    by(apart(now) / apart(before), middle(now));
    return true;
  }
  const up = (event) => fingers.delete(event.pointerId);
  return { at, apply, by, move, reset, down, moved, up };
}
