"use strict";
// Filter, copy, and details that open for links and for print. Without it, all is there to read.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // Filter: a clause is shown where one of its cells has a chosen status, and its words match.
  const form = document.querySelector(".filter");
  const { family, words, shown } = form.elements;
  const buttons = all("button.kind", form);
  const entries = all("[data-clause]");
  const clauses = all("#clauses [data-clause]");
  const texts = new Map(
    clauses.map((e) => [e.dataset.clause, e.querySelector("summary").textContent.toLowerCase()])
  );
  const visible = (selector, root) => all(selector, root).some((e) => !e.hidden);

  function filter() {
    const kinds = buttons.filter((b) => b.getAttribute("aria-pressed") === "true");
    const chosen = kinds.map((b) => b.dataset.kind);
    const wanted = words.value.trim().toLowerCase().split(/\s+/);
    for (const entry of entries) {
      const { clause, kinds } = entry.dataset;
      const own = kinds.split(" ");
      const text = texts.get(clause) || clause;
      entry.hidden = !(
        (!chosen.length || chosen.some((k) => own.includes(k))) &&
        (!family.value || clause.startsWith(family.value + ".")) &&
        wanted.every((w) => text.includes(w))
      );
    }
    for (const body of all("tbody")) body.hidden = !visible("[data-clause]", body);
    for (const head of all("h3.family"))
      head.hidden = !visible(`[data-clause^="${head.dataset.family}."]`, head.parentElement);
    for (const target of all(".target")) target.hidden = !visible("[data-clause]", target);
    for (const note of all(".nothing"))
      note.hidden = visible("[data-clause]", note.parentElement);
    const count = clauses.filter((e) => !e.hidden).length;
    shown.value = `${count} of ${clauses.length} clauses`;
  }
  for (const button of buttons)
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      filter();
    });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
    setTimeout(filter);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") form.reset();
  });

  // Copy.
  const told = document.getElementById("told");
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }
  for (const button of all("button.copy"))
    button.addEventListener("click", async () => {
      const word = button.firstChild;
      await copy(document.getElementById(button.dataset.copy).textContent);
      word.data = "Copied";
      told.textContent = "Copied to the clipboard.";
      setTimeout(() => {
        word.data = "Copy";
        told.textContent = "";
      }, 2000);
    });

  // What a link leads to is shown, even where the filter had hidden it, and opened.
  function open() {
    const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!found) return;
    if (found.hidden || found.closest("[hidden]")) form.reset();
    if (found.matches("details")) {
      found.open = true;
      setTimeout(() => {
        found.scrollIntoView();
        found.querySelector("summary").focus({ preventScroll: true });
      });
    }
  }
  addEventListener("hashchange", open);
  open();

  // On paper everything is open.
  const closed = new Set();
  addEventListener("beforeprint", () => {
    for (const e of all("details:not([open])")) closed.add(e) && (e.open = true);
  });
  addEventListener("afterprint", () => {
    for (const e of closed) e.open = false;
    closed.clear();
  });

  for (const cell of all("td [aria-label]")) cell.title = cell.getAttribute("aria-label");
})();
