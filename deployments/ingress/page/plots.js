// Small plots, drawn as SVG.
const [WIDTH, HEIGHT, KEPT] = [120, 28, 20];

function draw(parent, name, attributes) {
  const element = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// A row of the numbers: the newest value in words, and a bar for each of the last ones.
export class Plot {
  values = [];

  constructor(list, label, spell) {
    const row = list.appendChild(document.createElement("div"));
    row.innerHTML = `<dt>${label}</dt><dd><output>–</output></dd>`;
    const svg = draw(row.lastChild, "svg", { width: WIDTH, height: HEIGHT, role: "img" });
    Object.assign(this, { output: row.querySelector("output"), spell, svg });
    this.paint();
  }

  push(value) {
    if (!Number.isFinite(value)) return;
    this.values = [...this.values, value].slice(-KEPT);
    this.output.value = this.spell(value);
    this.paint();
  }

  paint() {
    this.svg.replaceChildren();
    this.svg.setAttribute("aria-label", this.values.map(this.spell).join(", ") || "nothing yet");
    draw(this.svg, "path", { d: `M0 ${HEIGHT - 0.5}H${WIDTH}`, class: "axis" });
    const [step, most] = [WIDTH / KEPT, Math.max(...this.values, 1e-9)];
    this.values.forEach((value, i) => {
      const height = Math.max(1.5, (value / most) * (HEIGHT - 4));
      const place = { x: i * step + 0.5, y: HEIGHT - 1 - height, width: step - 1.5, height, rx: 1 };
      draw(this.svg, "rect", { ...place, class: "bar" });
    });
  }
}

// How the work of a turn was divided: seconds by "stage.phase".
export function showShares(bar, legend, stages) {
  const spent = {};
  for (const [name, seconds] of Object.entries(stages)) {
    const [stage, phase] = name.split(".");
    if (["first_token", "first_frame", "text_wait"].includes(phase)) continue; // parts of a total, or another's
    spent[stage] = (spent[stage] ?? 0) + seconds;
  }
  const total = Object.values(spent).reduce((sum, seconds) => sum + seconds, 0);
  if (total) [bar, legend].forEach((element) => element.replaceChildren());
  Object.entries(spent).reduce((x, [stage, seconds], i) => {
    const width = (100 * seconds) / total;
    draw(bar, "rect", { x, y: 0, width, height: 8, class: `share share-${i % 4}` });
    const item = legend.appendChild(document.createElement("li"));
    Object.assign(item, { className: `share-${i % 4}`, textContent: `${stage} ${Math.round(width)} %` });
    return x + width;
  }, 0);
}
