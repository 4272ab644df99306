// Tooltips, arrow keys and the choice of a token. Without this script the page shows all tokens
// together, and the browser's own tooltips.
"use strict";
document.documentElement.classList.add("js");

const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
document.body.append(tip);

function showTip(cell) {
  const [name, ...lines] = cell.dataset.tip.split("\n");
  const head = document.createElement("b");
  head.textContent = name;
  tip.replaceChildren(head, lines.join(" · "));
  tip.hidden = false;
  const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), width - own.width - 8);
  const above = box.top - own.height - 8;
  tip.style.left = left + scrollX + "px";
  tip.style.top = (above > 0 ? above : box.bottom + 8) + scrollY + "px";
}
function hideTip() {
  tip.hidden = true;
}

// As fmt's {:.4g}.
function short(x) {
  return x === null ? "-" : String(Number(x.toPrecision(4)));
}

class HeatMap {
  constructor(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    this.figures = data.figures;
    this.edges = data.edges;
    this.frames = data.frames;
    this.cells = [...figure.querySelectorAll(".cell")];
    this.columns = data.columns;
    for (const cell of this.cells) this.setTip(cell, cell.title);
    this.start = this.cells.map((cell) => ({ className: cell.className, tip: cell.dataset.tip }));
    this.slider = figure.querySelector("input");
    this.output = figure.querySelector("output");
    if (this.slider) this.slider.addEventListener("input", () => chooseFrame(this.nameOfFrame()));
    for (const [index, cell] of this.cells.entries()) {
      cell.tabIndex = index ? -1 : 0;
      cell.addEventListener("mouseenter", () => showTip(cell));
      cell.addEventListener("mouseleave", hideTip);
      cell.addEventListener("focus", () => this.focused(cell));
      cell.addEventListener("blur", hideTip);
      cell.addEventListener("click", () => cell.focus());
      cell.addEventListener("keydown", (event) => this.move(event, index));
    }
  }

  setTip(cell, text) {
    cell.removeAttribute("title");
    cell.dataset.tip = text;
    cell.setAttribute("aria-label", text.replaceAll("\n", ", "));
  }

  // One cell of a map is in the order of the tab key; arrows go on from there.
  focused(cell) {
    for (const other of this.cells) other.tabIndex = other === cell ? 0 : -1;
    showTip(cell);
  }
  move(event, index) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    if (event.key === "Escape") hideTip();
    const next = this.cells[index + steps[event.key]];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  // "" is that of all tokens.
  nameOfFrame() {
    const frame = this.frames.rest[this.slider.value - 1];
    return frame ? frame.name : "";
  }
  // A name begins with the position of the token; the id behind it may differ from map to map.
  choose(name) {
    if (!this.slider) return;
    const key = (name) => name.split(" (")[0];
    const found = this.frames.rest.findIndex((frame) => key(frame.name) === key(name));
    this.slider.value = found + 1;
    this.output.value = this.nameOfFrame() || this.frames.first;
    if (found < 0) {
      this.cells.forEach((cell, i) => {
        cell.className = this.start[i].className;
        this.setTip(cell, this.start[i].tip);
      });
      return;
    }
    const frame = this.frames.rest[found];
    const marked = new Set(frame.marked);
    this.cells.forEach((cell, i) => this.paint(cell, frame, frame.cells[i], marked.has(i)));
  }
  paint(cell, frame, figures, marked) {
    const place = cell.dataset.tip.split("\n")[0].split(" ")[0];
    if (!figures) {
      cell.className = "cell";
      this.setTip(cell, place + " " + frame.name + "\nnot recorded");
      return;
    }
    const level = figures[0] === null ? "x" : this.edges.filter((edge) => edge < figures[0]).length;
    cell.className = "cell l" + level + (marked ? " mark" : "");
    const lines = this.figures.map((name, i) => name + " " + short(figures[i]));
    this.setTip(cell, [place + " " + frame.name, ...lines].join("\n"));
  }
}

const maps = [...document.querySelectorAll(".map")].map((figure) => new HeatMap(figure));

// All maps show the same token.
function chooseFrame(name) {
  for (const map of maps) map.choose(name);
}
