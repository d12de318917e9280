"use strict";
// The list of kernels: searched as somebody types, drawn a hundred at a time, unpacked when opened.
(() => {
  const STEP = 100;
  const OUTCOMES = ["conforms", "broken", "incomplete"];
  const WORDS = { conforms: "conforms", broken: "broken", incomplete: "unclear" };
  const { kernels, defects } = JSON.parse(document.getElementById("data").textContent);
  const packs = document.querySelectorAll(".pack");
  const together = Number(document.body.dataset.together);
  const [list, more, shown, clear, words, outcome] = ["list", "more", "shown", "clear", "words", "outcome"].map(
    (id) => document.getElementById(id)
  );
  const buttons = [...document.querySelectorAll(".defect")];
  const texts = kernels.map(([name, , defect, , , message]) =>
    `${name} ${defect < 0 ? "" : defects[defect].slice(0, 2).join(" ")} ${message}`.toLowerCase()
  );
  const unpacked = new Map();
  let chosen = -1;
  let found = [];
  let drawn = 0;

  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function unpack(pack) {
    if (!unpacked.has(pack)) {
      const bytes = Uint8Array.from(atob(packs[pack].textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      unpacked.set(pack, new Response(stream).json());
    }
    return unpacked.get(pack);
  }

  async function details(index) {
    const [common, some] = await Promise.all([unpack(0), unpack(1 + Math.floor(index / together))]);
    const whole = (blocks) => blocks.map((b) => (typeof b === "number" ? common[b] : b)).join("\n\n\n");
    const one = some[index % together];
    return { ...one, script: whole(one.script), source: whole(one.source) };
  }

  async function fill(box, index) {
    if (box.dataset.filled) return;
    box.dataset.filled = "yes";
    const one = await details(index);
    const facts = element("dl");
    const pairs = [
      ["clause", one.clause && `${one.clause} (${one.dtype})`],
      ["found", one.message],
      ["likely", one.cause],
      ["case", one.case],
      ["reason", one.reason],
      ["kernel", one.target],
      ["SHA-256", one.digest],
      ["seconds", `${kernels[index][4]}, of these ${one.compiling} to import it`],
    ];
    for (const [what, text] of pairs)
      if (text) facts.append(element("dt", what), element("dd", text));
    box.append(facts);
    for (const [what, text] of [["Script", one.script], ["Source", one.source]])
      if (text) box.append(element("h3", what), element("pre", text));
  }

  function line(index) {
    const [name, kind, defect, stage, , message] = kernels[index];
    const item = element("li");
    const box = element("details", undefined, OUTCOMES[kind]);
    const summary = element("summary");
    const what = defect < 0 ? message : `${defects[defect][0]} ${defects[defect][1]}`;
    summary.append(element("code", name), ` ${WORDS[OUTCOMES[kind]]} `);
    summary.append(element("span", `${stage}${what ? ` · ${what}` : ""}`, "what"));
    box.append(summary);
    box.addEventListener("toggle", () => box.open && fill(box, index));
    item.append(box);
    return item;
  }

  function draw() {
    list.append(...found.slice(drawn, drawn + STEP).map(line));
    drawn = Math.min(drawn + STEP, found.length);
    more.hidden = drawn >= found.length;
  }

  function search() {
    const wanted = words.value.trim().toLowerCase().split(/\s+/);
    const kind = Number(outcome.value);
    found = [];
    for (let k = 0; k < kernels.length; k++)
      if (
        (kind < 0 || kernels[k][1] === kind) &&
        (chosen < 0 || kernels[k][2] === chosen) &&
        wanted.every((word) => texts[k].includes(word))
      )
        found.push(k);
    list.replaceChildren();
    drawn = 0;
    draw();
    clear.hidden = chosen < 0;
    shown.value = `${found.length.toLocaleString("en")} of ${kernels.length.toLocaleString("en")} kernels`;
  }

  function choose(defect) {
    chosen = chosen === defect ? -1 : defect;
    buttons.forEach((b, k) => b.setAttribute("aria-pressed", String(k === chosen)));
    search();
    if (chosen >= 0) document.getElementById("kernels").scrollIntoView();
  }

  buttons.forEach((button, k) => button.addEventListener("click", () => choose(k)));
  clear.addEventListener("click", () => choose(chosen));
  more.addEventListener("click", draw);
  words.addEventListener("input", search);
  outcome.addEventListener("change", search);
  words.form.addEventListener("submit", (event) => event.preventDefault());
  search();
})();
