"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const form = document.querySelector(".filters");
  const selects = all("select", form);

  // The page's state lives in the address: #section?judge=pairrm&sort=table-1.5.descending
  const read = () => {
    const [section, query] = location.hash.slice(1).split("?");
    return { section, state: new URLSearchParams(query || "") };
  };
  const write = (name, value) => {
    const { section, state } = read();
    if (value) state.set(name, value); else state.delete(name);
    const query = state.toString();
    history.replaceState(null, "", "#" + section + (query ? "?" + query : ""));
  };

  // Light and dark. Some browsers keep no storage for local files: then the choice lasts as long as the page.
  const themes = {
    get() { try { return localStorage.getItem("nashbench-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("nashbench-theme", value); } catch { return; } },
  };
  const toggle = document.getElementById("theme");
  const paint = (theme) => {
    if (theme) root.dataset.theme = theme;
    const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    toggle.setAttribute("aria-pressed", String(dark));
    return dark;
  };
  toggle.addEventListener("click", () => {
    const next = toggle.getAttribute("aria-pressed") === "true" ? "light" : "dark";
    themes.set(next);
    paint(next);
  });
  paint(themes.get());

  // Filters hide what carries the attribute with another value; what does not carry it always stays.
  const filter = () => {
    const chosen = selects.filter((select) => select.value);
    for (const element of all("main [data-" + selects.map((s) => s.name).join("], main [data-") + "]")) {
      const fits = ({ name, value }) => {
        const own = element.dataset[name];
        return own === undefined || own === value || (name === "outcome" && own.split(" ").includes(value));
      };
      element.classList.toggle("off", !chosen.every(fits));
    }
  };
  for (const select of selects) {
    select.addEventListener("change", () => { write(select.name, select.value); filter(); });
  }
  form.addEventListener("submit", (event) => event.preventDefault());

  // A board's metrics are tabs; all of its blocks on the page show the same metric. Without script all are shown.
  const blocks = all(".views").filter((block) => block.children.length > 1);
  const views = (block) => [...block.children].filter((child) => child.classList.contains("view"));
  const show = (board, wanted) => {
    for (const block of blocks.filter((block) => block.dataset.board === board)) {
      const names = views(block).map((view) => view.dataset.view);
      const chosen = names.includes(wanted) ? wanted : names[0];
      for (const view of views(block)) view.hidden = view.dataset.view !== chosen;
      for (const tab of all(".tabs button", block)) tab.setAttribute("aria-pressed", String(tab.textContent === chosen));
    }
  };
  for (const block of blocks) {
    const tabs = document.createElement("div");
    tabs.className = "tabs";
    tabs.setAttribute("role", "group");
    tabs.setAttribute("aria-label", block.dataset.label ?? "Metric");
    for (const view of views(block)) {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.textContent = view.dataset.view;
      tab.addEventListener("click", () => {
        const before = block.getBoundingClientRect().top;
        const first = views(block)[0] === view;
        show(block.dataset.board, view.dataset.view);
        write("metric of " + block.dataset.board, first ? "" : view.dataset.view);
        scrollBy({ top: block.getBoundingClientRect().top - before, behavior: "instant" });
      });
      tabs.append(tab);
    }
    block.prepend(tabs);
  }

  // Sorting: numbers by their full value, texts by the alphabet, blanks last either way.
  const key = (cell) => {
    const value = cell.dataset.value ?? cell.dataset.sort ?? cell.querySelector("[data-value]")?.dataset.value ?? cell.textContent.trim();
    return value === "" || value === "–" ? null : isNaN(value) ? value.toLowerCase() : Number(value);
  };
  const order = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  const sort = (table, index, direction) => {
    const sign = direction === "descending" ? -1 : 1;
    const body = table.tBodies[0];
    // What different graders gave is never mixed: rows are sorted within their group.
    const groups = [...new Set([...body.rows].map((row) => row.dataset.group))];
    const keyed = [...body.rows].map((row, place) => ({ row, place, key: key(row.cells[index]), group: groups.indexOf(row.dataset.group) }));
    keyed.sort((a, b) => a.group - b.group || (a.key === null) - (b.key === null) || (a.key === null ? 0 : sign * order(a.key, b.key)) || a.place - b.place);
    body.append(...keyed.map((entry) => entry.row));
    keyed.forEach(({ row, group }, i) => row.classList.toggle("first", i > 0 && group !== keyed[i - 1].group));
    [...table.tHead.rows[0].cells].forEach((th, i) => {
      if (th.querySelector("button")) th.setAttribute("aria-sort", i === index ? direction : "none");
    });
  };
  for (const table of all("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((th, index) => {
      if ("nosort" in th.dataset) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes);
      th.append(button);
      th.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const first = th.classList.contains("n") ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const direction = th.getAttribute("aria-sort") === first ? other : first;
        sort(table, index, direction);
        write("sort", table.id + "." + index + "." + direction);
      });
    });
  }

  // CSV of what is shown, figures in full. A text that a spreadsheet would run as a formula is quoted.
  const field = (cell) => {
    const value = cell.dataset.value ?? cell.innerText.replace(/\s+/g, " ").trim();
    const safe = cell.dataset.value === undefined && /^[=+\-@]/.test(value) ? "'" + value : value;
    return '"' + safe.replaceAll('"', '""') + '"';
  };
  for (const table of all("table[data-csv]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "csv";
    button.textContent = "CSV";
    button.title = "Download this table";
    button.addEventListener("click", () => {
      const rows = [...table.rows].filter((row) => !row.classList.contains("off"));
      const lines = rows.map((row) => [...row.cells].map(field).join(","));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
      link.download = table.dataset.csv.replace(/[^\w.-]+/g, "-") + ".csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    (table.closest(".scroll") || table).after(button);
  }

  // The samples: j and k walk through those that are shown.
  const samples = all(".sample");
  let at = null;
  document.addEventListener("keydown", (event) => {
    if (!samples.length || event.target.closest("select, input") || event.ctrlKey || event.metaKey || !"jk".includes(event.key)) return;
    const shown = samples.filter((sample) => sample.offsetParent);
    const next = shown[at === null ? 0 : shown.indexOf(at) + (event.key === "j" ? 1 : -1)];
    if (!next) return;
    if (at) at.classList.remove("at");
    at = next;
    at.classList.add("at");
    at.scrollIntoView({ block: "center" });
  });

  // The table of contents follows the reader.
  const entries = all(".toc a");
  const spy = () => {
    const passed = entries.filter((a) => document.querySelector(a.hash).getBoundingClientRect().top < 160);
    for (const a of entries) a.classList.toggle("here", a === (passed.at(-1) || entries[0]));
  };
  if (entries.length) { addEventListener("scroll", spy, { passive: true }); spy(); }
  for (const a of entries) {
    a.addEventListener("click", (event) => {
      event.preventDefault();
      const { state } = read();
      const query = state.toString();
      history.pushState(null, "", a.hash + (query ? "?" + query : ""));
      document.querySelector(a.hash).scrollIntoView();
    });
  }

  // Printing shows everything that is folded.
  addEventListener("beforeprint", () => { for (const details of all("details")) details.open = true; });

  const restore = () => {
    const { section, state } = read();
    for (const select of selects) {
      const wanted = state.get(select.name) || "";
      select.value = [...select.options].some((option) => option.value === wanted) ? wanted : "";
    }
    filter();
    for (const board of new Set(blocks.map((block) => block.dataset.board))) show(board, state.get("metric of " + board));
    const [id, index, direction] = (state.get("sort") || "").split(".");
    const table = id && document.getElementById(id);
    if (table && table.matches("table.sortable") && table.tHead.rows[0].cells[index]?.querySelector("button") && ["ascending", "descending"].includes(direction)) {
      sort(table, Number(index), direction);
    }
    if (section && location.hash.includes("?")) document.getElementById(section)?.scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", restore);
  restore();
})();
