// What the page does: light and dark, clusters that open, the pad and its answer.

const $ = (id) => document.getElementById(id);

// Theme

const theme = $("theme");
const remember = (value) => { try { localStorage.setItem("theme", value); } catch { /* file:// */ } };
const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
if (["light", "dark"].includes(remembered())) document.documentElement.dataset.theme = remembered();
theme.hidden = false;
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  remember(document.documentElement.dataset.theme);
  dispatchEvent(new Event("themechange"));
});

// A link to a cluster opens it.
const openTarget = () => {
  const target = location.hash.startsWith("#cluster-") && $(location.hash.slice(1));
  if (target) { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", openTarget);
openTarget();

// The pad

const startPad = (model) => {
  const pad = $("pad"), brush = pad.getContext("2d"), seen = $("seen").getContext("2d", { willReadFrequently: true });
  const state = { strokes: [], pen: null, cursor: { x: PAD / 2, y: PAD / 2 }, keyboard: false };
  let pixels = new Uint8Array(SIDE * SIDE), waiting = false;
  brush.scale(pad.width / PAD, pad.height / PAD);
  brush.lineCap = brush.lineJoin = "round";

  const draw = () => {
    const style = getComputedStyle(pad);
    brush.clearRect(0, 0, PAD, PAD);
    brush.strokeStyle = brush.fillStyle = style.color;
    brush.lineWidth = 2 * RADIUS;
    for (const stroke of state.strokes) {
      brush.beginPath();
      stroke.forEach((point) => brush.lineTo(point.x, point.y));
      if (stroke.length === 1) brush.lineTo(stroke[0].x, stroke[0].y + 0.01);
      brush.stroke();
    }
    if (state.keyboard) {
      brush.beginPath();
      brush.lineWidth = 2;
      brush.strokeStyle = style.getPropertyValue("--hot");
      brush.arc(state.cursor.x, state.cursor.y, RADIUS + 3, 0, 2 * Math.PI);
      brush.stroke();
    }
  };

  const inkOf = (strokes) => {
    const ink = new Uint8Array(PAD * PAD);
    for (const stroke of strokes) {
      stroke.forEach((point, i) => stamp(ink, stroke[Math.max(0, i - 1)], point));
    }
    return ink;
  };

  const update = () => {
    waiting = false;
    draw();
    pixels = normalise(inkOf(state.strokes));
    const image = seen.createImageData(SIDE, SIDE);
    pixels.forEach((pixel, i) => image.data.set([pixel, pixel, pixel, 255], 4 * i));
    seen.putImageData(image, 0, 0);
    const empty = state.strokes.length === 0;
    $("pad-hint").hidden = !empty;
    $("save").disabled = $("undo").disabled = $("clear").disabled = empty;
    tell(empty ? [] : nearest(pixels, model), pixels, model);
  };
  const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(update); } };

  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left - pad.clientLeft) * PAD) / pad.clientWidth,
      y: ((event.clientY - box.top - pad.clientTop) * PAD) / pad.clientHeight,
    };
  };
  pad.addEventListener("pointerdown", (event) => {
    if (state.pen !== null || event.button !== 0) return;
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    state.pen = event.pointerId;
    state.keyboard = false;
    state.strokes.push([at(event)]);
    later();
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== state.pen) return;
    const parts = event.getCoalescedEvents?.() ?? [];
    state.strokes.at(-1).push(...(parts.length ? parts : [event]).map(at));
    later();
  });
  const lift = (event) => { if (event.pointerId === state.pen) state.pen = null; };
  pad.addEventListener("pointerup", lift);
  pad.addEventListener("pointercancel", lift);

  const undo = () => { state.strokes.pop(); state.down = false; later(); };
  const clear = () => { state.strokes = []; state.down = false; later(); };
  $("undo").addEventListener("click", undo);
  $("clear").addEventListener("click", clear);
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  pad.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { cursor } = state, way = ways[event.key];
    if (way) {
      const stay = (value) => Math.max(0, Math.min(PAD, value));
      cursor.x = stay(cursor.x + 10 * way[0]);
      cursor.y = stay(cursor.y + 10 * way[1]);
      if (state.down) state.strokes.at(-1).push({ ...cursor });
    } else if (event.key === " ") {
      state.down = !state.down;
      if (state.down) state.strokes.push([{ ...cursor }]);
    } else if (event.key === "Backspace") undo();
    else if (event.key === "Escape") clear();
    else return;
    event.preventDefault();
    state.keyboard = true;
    later();
  });
  pad.addEventListener("blur", () => { state.keyboard = state.down = false; later(); });
  $("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(npy(pixels));
    link.download = "drawing.npy";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  addEventListener("themechange", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  update();
};

// The answer

const SHOWN = 5;

const tell = (found, pixels, model) => {
  const best = found.slice(0, SHOWN), far = found.length ? distance(found.at(-1).squared, model) : 1;
  document.querySelectorAll("details.near").forEach((tile) => tile.classList.remove("near"));
  const digit = best.length ? model.digits[best[0].cluster] : null;
  $("digit").textContent = digit ?? (best.length ? "#" : "?");
  $("verdict").textContent = !best.length ? "Nothing drawn yet."
    : `Cluster ${best[0].cluster} is nearest` + (digit === null ? "." : `: it stands for ${digit}.`);
  $("nearest").replaceChildren(...best.map(({ cluster, squared }) => {
    const tile = $(`cluster-${cluster}`), length = distance(squared, model);
    tile?.classList.toggle("near", cluster === best[0].cluster);
    return item(cluster, model.digits[cluster], length, length / far, tile);
  }));
  const you = $("you");
  if (!you || !model.map) return;
  you.setAttribute("visibility", best.length ? "visible" : "hidden");
  const x = features(pixels, model), { axes, origin, low, high } = model.map;
  const share = [0, 1].map((axis) => {
    let value = 0;
    for (let i = 0; i < model.d; i++) value += axes[axis * model.d + i] * (x[i] - origin[i]);
    return Math.max(0, Math.min(1, (value - low[axis]) / (high[axis] - low[axis])));
  });
  you.setAttribute("x", `${100 * share[0]}%`);
  you.setAttribute("y", `${100 - 100 * share[1]}%`);
};

const item = (cluster, digit, length, share, tile) => {
  const row = $("nearest-item").content.cloneNode(true);
  const link = row.querySelector("a"), image = row.querySelector("img");
  link.href = `#cluster-${cluster}`;
  link.dataset.cluster = cluster;
  const picture = tile?.querySelector("img");
  if (picture) image.src = picture.src;
  image.alt = `Centroid of cluster ${cluster}`;
  row.querySelector("b").textContent = digit ?? `#${cluster}`;
  row.querySelector("rect").setAttribute("width", `${100 * share}%`);
  row.querySelector(".distance").textContent = length.toFixed(length < 1 ? 4 : 2);
  return row;
};

if ($("model")) {
  const model = readModel($("model"));
  // For the console, and for the tests that hold the page against Python.
  window.kmeans = { model, sum, features, nearest: (pixels) => nearest(pixels, model), normalise, npy };
  if ($("pad")) startPad(model);
}
