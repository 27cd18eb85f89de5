"use strict";
// Filters live in the address (#study=…&finding=…&agreement=…), so a filtered view can be bookmarked and shared.
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const cards = [...document.querySelectorAll("article.study")];
  const fields = ["study", "finding", "agreement"].map((name) => form.elements.namedItem(name));
  const shown = document.getElementById("shown");
  const none = document.getElementById("none");

  function fits(card) {
    const [study, finding, agreement] = fields.map((field) => field.value);
    return (
      card.dataset.study.toLowerCase().includes(study.trim().toLowerCase()) &&
      (!finding || card.dataset.findings.split("|").includes(finding)) &&
      (!agreement || card.dataset.agreement.split(" ").includes(agreement))
    );
  }

  function apply() {
    let count = 0;
    for (const card of cards) {
      card.hidden = !fits(card);
      count += card.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${cards.length} shown`;
    none.hidden = count > 0;
  }

  function fromAddress() {
    if (location.hash.length > 1 && !location.hash.includes("=")) return; // a link to a section
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const field of fields) {
      const value = asked.get(field.name) ?? "";
      const legal = field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value);
      field.value = legal ? value : "";
    }
  }

  function toAddress() {
    const asked = new URLSearchParams();
    for (const field of fields) if (field.value) asked.set(field.name, field.value);
    const text = asked.toString();
    history.replaceState(null, "", text ? `#${text}` : "#reports");
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { apply(); toAddress(); });
  form.addEventListener("reset", () => setTimeout(() => { apply(); toAddress(); }));
  window.addEventListener("hashchange", () => { fromAddress(); apply(); });
  form.hidden = false;
  fromAddress();
  apply();
  if (location.hash.includes("=")) document.getElementById("reports").scrollIntoView();
})();

// A phrase under the pointer is shown in both reports of its study.
(() => {
  let lit = [];
  document.addEventListener("pointerover", (event) => {
    for (const mark of lit) mark.classList.remove("lit");
    const mark = event.target instanceof Element ? event.target.closest("mark[data-phrase]") : null;
    const card = mark && mark.closest("article.study");
    lit = card ? [...card.querySelectorAll(`mark[data-phrase="${mark.dataset.phrase}"]`)] : [];
    for (const one of lit) one.classList.add("lit");
  });
})();
