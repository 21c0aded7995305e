"use strict";
(function () {
  const sets = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = {
    "#0072B2": "#56B4E9", "#D55E00": "#E69F00", "#009E73": "#2FC79A", "#667085": "#98A2B3",
    "#CC79A7": "#E3A5C7", "#E69F00": "#F0E442", "#56B4E9": "#8FD0F5", "#ffffff": "#12151a", white: "#12151a", "#1d2430": "#e8ebf0",
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
    }
    if (meta.kind === "named") {
      const fitting = meta.widths.filter((entry) => entry.width <= width);
      const chosen = fitting.length ? fitting[fitting.length - 1] : meta.widths[0];
      figure.layout.height = chosen.height;
      const ground = getComputedStyle(root).getPropertyValue("--bg").trim() + "b0";
      figure.layout.annotations = chosen.annotations.map((name) => Object.assign({ bgcolor: ground, borderpad: 0 }, name));
      Object.assign(figure.layout.xaxis, chosen.ticks);
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
    document.querySelectorAll(".table").forEach(fit);
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
    document.querySelectorAll(".table").forEach(fit);
  }));
  function showTarget() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const hidden = target && target.closest(".set[hidden]");
    if (!hidden) return;
    document.querySelector(`[data-show="${hidden.id.slice(4)}"]`).click();
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", showTarget);
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
    document.querySelectorAll(`#${input.dataset.filter} .table`).forEach(fit);
  }));

  // A table that is too wide ends at the edge of a column and says how many are not seen.
  function edges(table) {
    const left = table.getBoundingClientRect().left;
    // The first column stays where it is when the others are scrolled.
    return Array.from(table.tHead.rows[0].cells).map((cell, i) => i ? cell.getBoundingClientRect().right - left : cell.offsetWidth);
  }
  function fit(box) {
    const scroll = box.querySelector(".scroll"), table = box.querySelector("table");
    scroll.style.maxWidth = scroll.style.maxHeight = "";
    if (!scroll.clientWidth) return;
    const limit = Math.max(420, 0.8 * window.innerHeight), top = table.getBoundingClientRect().top;
    if (table.offsetHeight > limit) {
      const ends = Array.from(table.tBodies[0].rows).map((row) => row.getBoundingClientRect().bottom - top);
      const bar = scroll.offsetHeight - scroll.clientHeight;
      scroll.style.maxHeight = ends.filter((end) => end <= limit).pop() + bar + "px";
    }
    const room = scroll.clientWidth, ends = edges(table);
    if (table.scrollWidth > room + 1) {
      const whole = ends.filter((end) => end <= room);
      if (whole.length > 1) scroll.style.maxWidth = whole[whole.length - 1] + 3 + "px";
    }
    cue(box);
  }
  function cue(box) {
    const scroll = box.querySelector(".scroll"), more = box.querySelector(".more");
    const seen = scroll.scrollLeft + scroll.clientWidth + 4;
    const hidden = edges(box.querySelector("table")).filter((end) => end > seen).length;
    const wide = scroll.scrollWidth > scroll.clientWidth + 4;
    box.classList.toggle("cut", wide && hidden > 0);
    box.classList.toggle("moved", scroll.scrollLeft > 2);
    more.hidden = !wide;
    more.textContent = hidden ? `${hidden} more column${hidden > 1 ? "s" : ""} →` : "← first columns";
    const bottom = scroll.getBoundingClientRect().bottom;
    const below = Array.from(box.querySelector("tbody").rows).filter((row) => !row.hidden && row.getBoundingClientRect().bottom > bottom + 4).length;
    box.querySelector(".below").textContent = below ? `${below} more row${below > 1 ? "s" : ""} below, scroll` : "";
  }
  function further(box) {
    const scroll = box.querySelector(".scroll"), ends = edges(box.querySelector("table"));
    const seen = scroll.scrollLeft + scroll.clientWidth + 4;
    const next = ends.findIndex((end) => end > seen);
    // The first hidden column comes to stand right of the row headers, which stay.
    scroll.scrollLeft = next < 0 ? 0 : ends[next - 1] - ends[0];
    cue(box);
  }
  document.querySelectorAll(".table").forEach((box) => {
    box.querySelector(".scroll").addEventListener("scroll", () => cue(box), { passive: true });
    box.querySelector(".more").addEventListener("click", () => further(box));
    fit(box);
  });
  document.querySelectorAll("details").forEach((node) => node.addEventListener("toggle", () => node.querySelectorAll(".table").forEach(fit)));

  // ---- copies and downloads -----------------------------------------------------------------
  function said(control, text) {
    const before = control.dataset.name || control.textContent;
    control.dataset.name = before;
    control.textContent = text;
    setTimeout(() => { control.textContent = before; }, 1500);
  }
  function copy(control, text) {
    const old = () => {
      const area = element("textarea", "", text);
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      control.focus();
      said(control, done ? "Copied" : "Not allowed here");
    };
    if (!navigator.clipboard) { old(); return; }
    navigator.clipboard.writeText(text).then(() => said(control, "Copied"), old);
  }
  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function fileName(text) { return text.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").toLowerCase(); }
  function rowsOf(table) {
    const rows = [table.tHead.rows[0], ...Array.from(table.tBodies[0].rows).filter((row) => !row.hidden)];
    return rows.map((row) => Array.from(row.cells).map((cell) => cell.textContent.trim()));
  }
  // A text that a spreadsheet would run as a formula gets an apostrophe; numbers stay numbers.
  function plain(text) { return /^[=+\-@\t\r]/.test(text) && !/^[+-]?[\d.,]+$/.test(text) ? "'" + text : text; }
  function quoted(text) { return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text; }
  function onAll(selector, act) {
    document.querySelectorAll(selector).forEach((control) => control.addEventListener("click", () => act(control)));
  }
  onAll("[data-copy]", (control) => {
    const rows = rowsOf(control.closest(".table").querySelector("table"));
    copy(control, rows.map((row) => row.map(plain).join("\t")).join("\n"));
  });
  onAll("[data-csv]", (control) => {
    const rows = rowsOf(control.closest(".table").querySelector("table"));
    save(fileName(control.dataset.csv) + ".csv", "text/csv", rows.map((row) => row.map(plain).map(quoted).join(",")).join("\r\n") + "\r\n");
    said(control, "Saved");
  });
  onAll("[data-latex]", (control) => copy(control, sets[control.dataset.latex].latex));
  onAll("[data-copy-text]", (control) => {
    const node = document.getElementById(control.dataset.copyText);
    copy(control, Array.from(node.children).map((line) => line.textContent.trim()).join("\n"));
  });
  onAll("[data-picture]", (control) => {
    const node = control.closest(".picture").querySelector(".chart");
    const ground = getComputedStyle(root).getPropertyValue("--bg").trim();
    const layout = Object.assign({}, node.layout, { paper_bgcolor: ground, plot_bgcolor: ground });
    const options = { format: control.dataset.picture, filename: fileName(node.dataset.chart), width: node.clientWidth, height: node.clientHeight, scale: control.dataset.picture === "png" ? 2 : 1 };
    Plotly.downloadImage({ data: node.data, layout }, options).then(() => said(control, "Saved"));
  });

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
  showTarget();
})();
