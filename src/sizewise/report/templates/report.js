"use strict";
(function () {
  const sets = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = {
    "#0072B2": "#56B4E9", "#D55E00": "#E69F00", "#009E73": "#2FC79A", "#667085": "#98A2B3",
    "#CC79A7": "#E3A5C7", "#E69F00": "#F0E442", "#56B4E9": "#8FD0F5", "#ffffff": "#12151a", white: "#12151a",
  };

  function remembered() {
    try { return localStorage.getItem("sizewise-theme"); } catch (error) { return null; }
  }
  function setTheme(theme, keep) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", "Switch to the " + button.textContent.toLowerCase() + " theme");
    if (keep) { try { localStorage.setItem("sizewise-theme", theme); } catch (error) { /* file: pages may not store */ } }
    document.querySelectorAll(".chart[data-drawn]").forEach(draw);
  }

  // ---- charts -------------------------------------------------------------------------------
  function recolour(value) {
    if (typeof value === "string") return dark[value] || value;
    if (Array.isArray(value)) return value.map(recolour);
    if (value && typeof value === "object") {
      const copy = {};
      for (const key of Object.keys(value)) copy[key] = recolour(value[key]);
      return copy;
    }
    return value;
  }
  function axis(given, style) {
    const line = style.getPropertyValue("--line").trim();
    const soft = style.getPropertyValue("--soft").trim();
    return Object.assign({ gridcolor: line, linecolor: line, zerolinecolor: soft, zerolinewidth: 1, ticks: "", zeroline: false, fixedrange: true }, given, { title: Object.assign({ standoff: 10 }, given && given.title, { font: { size: 12.5, color: soft } }) });
  }
  function forPhone(figure, width) {
    const meta = figure.layout.meta || {};
    const narrow = width < 560;
    if (meta.kind === "forest") {
      const soft = getComputedStyle(root).getPropertyValue("--soft").trim();
      const bg = getComputedStyle(root).getPropertyValue("--bg").trim();
      const place = (x, y, text, more) => Object.assign({ xref: "paper", x, y, text, showarrow: false, xanchor: "left", align: "left", bgcolor: bg, borderpad: 1, font: { size: 12, color: soft } }, more);
      figure.layout.annotations = meta.headings.map(([y, text]) => place(0, y, "<b>" + escapeText(text) + "</b>", { font: { size: 12.5 } }));
      if (narrow) {
        meta.labels.forEach((text, i) => figure.layout.annotations.push(place(0, meta.at[i], text, { yshift: 13, font: { size: 11, color: soft } })));
        figure.layout.yaxis.showticklabels = false;
        figure.layout.height *= 1.5;
      }
    } else if (narrow) {
      figure.layout.margin = Object.assign({}, figure.layout.margin, { l: Math.min(figure.layout.margin.l || 48, 46), r: 12 });
      for (const trace of figure.data) if (trace.meta && trace.meta.short) trace.text = trace.meta.short;
    }
    return figure;
  }
  function escapeText(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }
  function draw(node) {
    const stored = sets[node.dataset.set].charts[node.dataset.chart];
    node.dataset.drawn = "1";
    if (!stored) return;
    let figure = JSON.parse(JSON.stringify(stored));
    figure = forPhone(figure, node.clientWidth);
    if (root.dataset.theme === "dark") figure.data = recolour(figure.data);
    const shapes = figure.layout.shapes;
    if (shapes && root.dataset.theme === "dark") figure.layout.shapes = recolour(shapes);
    if (figure.layout.annotations && root.dataset.theme === "dark") figure.layout.annotations = recolour(figure.layout.annotations);
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--ink").trim();
    Object.assign(figure.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink },
      hoverlabel: { bgcolor: style.getPropertyValue("--panel").trim(), bordercolor: style.getPropertyValue("--line").trim(), font: { color: ink, size: 12.5 }, align: "left" },
      xaxis: axis(figure.layout.xaxis, style), yaxis: axis(figure.layout.yaxis, style),
    });
    Plotly.react(node, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }
  function drawRest() {
    const next = document.querySelector(".set:not([hidden]) .chart:not([data-drawn])");
    if (!next) return;
    draw(next);
    setTimeout(drawRest, 0);
  }
  window.addEventListener("beforeprint", () => document.querySelectorAll(".set:not([hidden]) .chart").forEach(draw));
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    const crossed = (width < 600) !== (window.innerWidth < 600);
    width = window.innerWidth;
    if (crossed) document.querySelectorAll(".chart[data-drawn]").forEach(draw);
  });

  function press(group, chosen) {
    group.forEach((other) => other.setAttribute("aria-pressed", String(other === chosen)));
  }
  document.querySelectorAll("[data-switch]").forEach((choice) => choice.addEventListener("click", () => {
    press(document.querySelectorAll(`[data-switch="${choice.dataset.switch}"]`), choice);
    const node = document.querySelector(`#${choice.dataset.switch} .chart`);
    Plotly.purge(node);
    node.dataset.chart = choice.dataset.to;
    draw(node);
  }));
  document.querySelectorAll("[data-show]").forEach((choice) => choice.addEventListener("click", () => {
    press(document.querySelectorAll("[data-show]"), choice);
    document.querySelectorAll(".set").forEach((set) => { set.hidden = set.id !== "set-" + choice.dataset.show; });
    drawRest();
  }));
  button.addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark", true));

  // ---- tables -------------------------------------------------------------------------------
  function value(row, column) {
    const text = row.children[column].dataset.sort;
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  document.querySelectorAll("table.sortable th button").forEach((head) => head.addEventListener("click", () => {
    const cell = head.parentElement;
    const heads = Array.from(cell.parentElement.children);
    const column = heads.indexOf(cell);
    const body = cell.closest("table").tBodies[0];
    const down = cell.getAttribute("aria-sort") ? cell.getAttribute("aria-sort") === "ascending" : column > 0;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(body.rows).map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : (down ? -1 : 1) * compare(a, b)));
    rows.forEach(([, row]) => body.appendChild(row));
  }));
  document.querySelectorAll("[data-filter]").forEach((input) => input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelectorAll(`#${input.dataset.filter} tbody tr`).forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
    });
  }));

  // ---- examples -----------------------------------------------------------------------------
  function element(name, className, text) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  function browse(section) {
    const sample = sets[section.dataset.browser].sample;
    const part = (role) => section.querySelector(`[data-role="${role}"]`);
    const binary = sample.rows.every((row) => row.scores.every((score) => score === null || score === 0 || score === 1));
    const select = part("model"), kind = part("kind"), search = part("search");
    sample.models.forEach((name, i) => {
      if (sample.tuned[i]) select.append(new Option(name, i));
    });
    if (!select.options.length) select.closest("label").hidden = kind.closest("label").hidden = true;
    if (!binary) {
      const names = { worse: "tuned worse than base", better: "tuned better than base" };
      for (const option of Array.from(kind.options)) {
        if (names[option.value]) option.textContent = names[option.value];
        else if (option.value !== "all") option.remove();
      }
    }
    let shown = [], at = 0;
    function keep(row) {
      const i = Number(select.value), j = sample.base[i];
      const text = (row.prompt + " " + row.reference + " " + row.answers.join(" ")).toLowerCase();
      if (search.value && !text.includes(search.value.toLowerCase())) return false;
      if (kind.value === "all" || j === null || j === undefined) return true;
      const a = row.scores[i], b = row.scores[j];
      if (a === null || b === null) return false;
      if (kind.value === "worse") return sample.sign * a < sample.sign * b;
      if (kind.value === "better") return sample.sign * a > sample.sign * b;
      return kind.value === "right" ? a === 1 && b === 1 : a === 0 && b === 0;
    }
    function mark(score) {
      if (score === null) return element("span", "dim", "not scored");
      if (binary) return element("span", score ? "ok" : "no", score ? "✓ right" : "✗ wrong");
      return element("span", "dim", sample.percent ? (100 * score).toFixed(1) + " %" : String(score));
    }
    function block(className, title, text) {
      const node = element("div", className);
      const head = element("div", "head");
      head.append(element("span", "", title));
      node.append(head, element("pre", "", text));
      return [node, head];
    }
    function render() {
      part("where").textContent = shown.length ? `${at + 1} of ${shown.length}` : "none";
      const box = part("example");
      box.replaceChildren();
      if (!shown.length) { box.append(element("div", "dim", "No example of the sample fits.")); return; }
      const row = shown[at];
      const [prompt, head] = block("prompt", "Prompt", row.prompt);
      Object.entries(row.strata).forEach(([name, text]) => head.append(element("span", "dim", `· ${name}: ${text}`)));
      const answers = element("div", "answers");
      const chosen = Number(select.value), base = sample.base[chosen];
      const first = [chosen, base].filter((i) => Number.isInteger(i));
      const order = select.options.length ? first.concat(sample.models.map((_, i) => i).filter((i) => !first.includes(i))) : sample.models.map((_, i) => i);
      order.forEach((i) => {
        const [node, title] = block("", sample.models[i], row.answers[i] === "" ? "(empty)" : row.answers[i]);
        title.append(mark(row.scores[i]));
        answers.append(node);
      });
      box.append(prompt, block("", "Reference", row.reference)[0], answers);
    }
    function filter() { shown = sample.rows.filter(keep); at = 0; render(); }
    function step(by) { if (shown.length) { at = (at + by + shown.length) % shown.length; render(); } }
    [select, kind].forEach((node) => node.addEventListener("change", filter));
    search.addEventListener("input", filter);
    part("previous").addEventListener("click", () => step(-1));
    part("next").addEventListener("click", () => step(1));
    section.addEventListener("keydown", (event) => {
      if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
      if (event.key === "ArrowRight") step(1);
      if (event.key === "ArrowLeft") step(-1);
    });
    filter();
  }
  document.querySelectorAll("[data-browser]").forEach(browse);

  const asked = /[?&]theme=(light|dark)/.exec(location.search);
  const preferred = window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  setTheme((asked && asked[1]) || remembered() || preferred, false);
  drawRest();
})();
