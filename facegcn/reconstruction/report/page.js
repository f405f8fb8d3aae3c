// Which faces are in memory, their controls, the table's order.
const NEAR = "400px 0px", MOST_LOADED = 8;
const GROUPS = { // a slider for several expressions; names as ARKit's, in any case, sides by L, R, Left or Right
  "Open jaw": ["jawopen"], Smile: ["mouthsmile"], Frown: ["mouthfrown"], Pucker: ["mouthpucker"],
  "Close eyes": ["eyeblink"], "Raise brows": ["browinnerup", "browouterup"],
};
const views = [];

function belongs(name, members) {
  const plain = name.toLowerCase().replace(/[^a-z]/g, "");
  return members.includes(plain) || members.includes(plain.replace(/(left|right|l|r)$/, ""));
}

class View {
  constructor(box) {
    this.box = box;
    this.name = box.dataset.name;
    box.replaceChildren(document.getElementById("controls").content.cloneNode(true));
    this.canvas = box.querySelector("canvas");
    this.canvas.setAttribute("aria-label", `Face of ${this.name}: arrow keys turn it, plus and minus zoom, 0 resets`);
    const image = (kind) => box.closest("article").querySelector(`img[data-kind="${kind}"]`);
    this.face = new Face(this.canvas, box.dataset.face, { photo: image("input"), albedo: image("albedo"), lit: image("lit") });
    this.buttons();
    this.sliders();
    this.canvas.addEventListener("keydown", (event) => this.face.key(event));
    this.canvas.addEventListener("pointerdown", () => this.canvas.focus({ preventScroll: true }));
    this.canvas.addEventListener("wheel", (event) => { // who only scrolls past is not held
      if (document.activeElement !== this.canvas && !event.ctrlKey) event.stopImmediatePropagation();
    }, { capture: true, passive: true });
    new ResizeObserver(() => this.face.request()).observe(this.canvas);
  }

  buttons() {
    const views = [...this.box.querySelectorAll("[data-view]")], { face } = this;
    const show = (number) => {
      face.view = number;
      views.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.view) === number)));
      face.request();
    };
    views.forEach((button) => button.addEventListener("click", () => show(Number(button.dataset.view))));
    show(0);
    const actions = {
      reset: () => face.reset(),
      light: () => this.lights.forEach((slider) => put(slider, slider.defaultValue)),
      photo: () => this.express(face.photoWeights),
      neutral: () => this.express(face.weights.map(() => 0)),
    };
    this.box.querySelectorAll("[data-do]").forEach((button) =>
      button.addEventListener("click", () => actions[button.dataset.do]()));
  }

  sliders() {
    this.lights = [...this.box.querySelectorAll("[data-light]")];
    this.lights.forEach((slider) => slider.addEventListener("input", (event) => {
      const { face } = this, kind = slider.dataset.light;
      face.light[kind] = Number(slider.value);
      told(slider);
      if (event.isTrusted && (kind === "side" || kind === "height") && !face.light.lamp) // else nothing would be seen
        put(this.lights.find((other) => other.dataset.light === "lamp"), 80);
      face.request();
    }));
    this.lights.forEach(told);
  }

  async load() {
    await this.face.load();
    if (!this.targets && this.face.shapes.length) this.expressions();
  }

  // Sliders of the expressions: named groups, then each.
  expressions() {
    const { face } = this, names = face.shapes.map((shape) => shape.name);
    const groups = this.box.querySelector(".groups"), all = this.box.querySelector(".all");
    this.targets = names.map((name, i) => {
      const slider = this.target(name, Math.min(0, face.photoWeights[i]), Math.max(1, face.photoWeights[i]));
      all.append(slider.parentElement);
      slider.addEventListener("input", () => { face.weights[i] = Number(slider.value); this.expressed(); });
      return slider;
    });
    this.groups = Object.entries(GROUPS).flatMap(([title, members]) => {
      const found = names.flatMap((name, i) => (belongs(name, members) ? [i] : []));
      if (!found.length) return [];
      const slider = this.target(title, 0, 1);
      groups.append(slider.parentElement);
      slider.addEventListener("input", () => { found.forEach((i) => (face.weights[i] = Number(slider.value))); this.expressed(); });
      return [{ slider, found }];
    });
    this.box.querySelector(".more").open = !this.groups.length;
    this.box.querySelector(".expression").hidden = false;
    this.expressed();
  }

  target(title, least, most) {
    const label = document.createElement("label"), slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: least, max: most, step: "0.01" });
    const output = document.createElement("output");
    output.setAttribute("aria-hidden", "true");
    label.append(`${title} `, output, slider);
    return slider;
  }

  express(weights) {
    this.face.weights = weights.slice();
    this.expressed();
  }

  expressed() {
    const { weights } = this.face, show = (slider, value) => { slider.value = value; told(slider); };
    this.targets.forEach((slider, i) => show(slider, weights[i]));
    this.groups.forEach(({ slider, found }) => show(slider, found.reduce((sum, i) => sum + weights[i], 0) / found.length));
    this.face.express();
  }
}

function put(slider, value) {
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
}

function told(slider) {
  const unit = slider.dataset.unit, text = unit ? slider.value + unit : Number(slider.value).toFixed(2);
  slider.parentElement.querySelector("output").textContent = text;
  slider.setAttribute("aria-valuetext", text);
}

function redrawAll() {
  views.forEach((view) => view.face.request());
}

// ---------------------------------------------------------------- what is in memory
const queue = { near: new Set(), loaded: new Set(), busy: false };

async function loadNear() {
  if (queue.busy) return;
  queue.busy = true;
  for (let box; (box = nearest([...queue.near].filter((one) => !queue.loaded.has(one))));) {
    await loadBox(box);
    makeRoom();
    await new Promise((resolve) => setTimeout(resolve)); // the page stays at hand
  }
  queue.busy = false;
}

function nearest(boxes) {
  const away = (box) => Math.abs(box.getBoundingClientRect().top);
  return boxes.sort((a, b) => away(a) - away(b))[0];
}

async function loadBox(box) {
  queue.loaded.add(box);
  try {
    if (!box.view) views.push(box.view = new View(box));
    await box.view.load();
    document.documentElement.dataset.firstFace ||= Math.round(performance.now()); // milliseconds, for measurements
  } catch (error) {
    tell(box, `This face cannot be shown: ${error.message}`);
  }
}

function tell(box, text) {
  const words = document.createElement("p");
  words.className = "notice";
  words.textContent = text;
  box.replaceChildren(words);
}

// Of those that are not near, the ones longest in memory go.
function makeRoom() {
  for (const box of [...queue.loaded]) {
    if (queue.loaded.size <= MOST_LOADED) return;
    if (queue.near.has(box)) continue;
    queue.loaded.delete(box);
    if (box.view) box.view.face.free();
  }
}

// Gives each photo to a function as soon as all of it is parsed: the first faces need not wait for the last.
function eachPhoto(take) {
  const photos = document.getElementById("photos"), articles = photos.getElementsByTagName("article");
  let taken = 0;
  const look = (whole) => { while (taken < articles.length - !whole) take(articles[taken++]); };
  const observer = new MutationObserver(() => look(false));
  observer.observe(photos, { childList: true });
  document.addEventListener("DOMContentLoaded", () => { observer.disconnect(); look(true); });
}

function eachBox(take) {
  eachPhoto((article) => article.querySelectorAll(".view[data-face]").forEach(take));
}

function begin() {
  try {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old; one of 2023 or later can show the faces");
    painter.start();
  } catch (error) {
    eachBox((box) => tell(box, `Faces cannot be turned here: ${error.message}`));
    return;
  }
  const observer = new IntersectionObserver((entries) => {
    entries.forEach(({ target, isIntersecting }) => {
      if (isIntersecting) queue.near.add(target);
      else queue.near.delete(target);
    });
    loadNear();
  }, { rootMargin: NEAR });
  let first = true;
  eachBox((box) => {
    observer.observe(box);
    if (!first) return;
    first = false; // it is ready before it is scrolled to
    queue.near.add(box);
    loadNear();
  });
}

// ---------------------------------------------------------------- the table
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value, sign = down ? -1 : 1;
    const rows = [...body.rows].map((row) => ({ row, value: value(row) }));
    rows.sort((a, b) => {
      if (a.value === undefined || b.value === undefined) return (a.value === undefined) - (b.value === undefined);
      const [x, y] = [Number(a.value), Number(b.value)];
      return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.value.localeCompare(b.value) : x - y);
    });
    body.append(...rows.map(({ row }) => row));
  }));
}

document.querySelectorAll("table.sortable").forEach(sortable);
begin();
